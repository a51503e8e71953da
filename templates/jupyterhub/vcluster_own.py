"""The ways to log in with a password of one's own that the Hub keeps: firstuse and native."""

import asyncio
import dbm
from concurrent.futures import ThreadPoolExecutor
from hmac import compare_digest
from types import SimpleNamespace

import bcrypt
from jupyterhub.handlers.login import LoginHandler
from vcluster_auth import People


class Page(LoginHandler):
    """JupyterHub's own page for a name and a password; those of the two ways below do not know this release's."""

    custom_login_error = ""

    def _render(self, login_error=None, username=None, **more):
        return super()._render(self.custom_login_error or login_error, username, **more)


# Hashing takes a quarter of a second, and in the Hub's own thread would stop it for all.
hashers = ThreadPoolExecutor(2)


def cut(secret, salt):
    """A digest of bcrypt's: of no more than bcrypt looks at, where it would refuse."""
    return bcrypt.hashpw(secret[:72], salt)


async def hashed(password, salt):
    return await asyncio.get_running_loop().run_in_executor(hashers, cut, password.encode(), salt)


def first_use():
    from firstuseauthenticator import FirstUseAuthenticator, firstuseauthenticator

    firstuseauthenticator.bcrypt = SimpleNamespace(hashpw=cut, gensalt=bcrypt.gensalt)

    class FirstUse(People, FirstUseAuthenticator):
        """The first password that somebody types for a name in people.json becomes that person's."""

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            # One thread: one dbm at a time.
            self._hasher = ThreadPoolExecutor(1)

        def get_handlers(self, app):
            return [(path, Page if path == "/login" else page) for path, page in super().get_handlers(app)]

        async def way(self, handler, data, name, person):
            password = data.get("password") or ""
            proved = await asyncio.get_running_loop().run_in_executor(self._hasher, self._check, name, password)
            if proved is None:
                handler.custom_login_error = f"Choose a password of at least {self.min_password_length} characters."
            return bool(proved)

        def _check(self, name, password):
            """Whether it is the password; None for one that is too short to become one."""
            secret = password.encode()
            with dbm.open(self.dbm_path, "c", 0o600) as known:
                stored = known.get(name.encode())
                if stored is not None:
                    return compare_digest(cut(secret, stored), stored)
                if len(password) < self.min_password_length:
                    return None
                known[name.encode()] = cut(secret, bcrypt.gensalt())
                return True

    return FirstUse


def native():
    from nativeauthenticator import NativeAuthenticator, handlers, nativeauthenticator, orm

    orm.bcrypt = nativeauthenticator.bcrypt = SimpleNamespace(hashpw=cut, gensalt=bcrypt.gensalt)

    class LoginPage(Page):
        def render_template(self, name, **ns):
            if name == "login.html":
                name, ns = "native-login.html", {**ns, "enable_signup": True}
            return super().render_template(name, **ns)

    class SignUpPage(handlers.SignUpHandler):
        async def post(self):
            given = tuple(self.get_body_argument(key, "", strip=False) for key in ("username", "signup_password"))
            if self.authenticator.may_sign_up(*given):
                self.authenticator.digests[given] = await hashed(given[1], bcrypt.gensalt())
            await super().post()
            self.authenticator.digests.pop(given, None)

    class Native(People, NativeAuthenticator):
        """People in people.json sign up; an admin, who comes by the admin password, lets them in."""

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.digests = {}  # of names and passwords that people just sign up with

        def get_handlers(self, app):
            own = {"/login": LoginPage, "/signup": SignUpPage}
            return [(path, own.get(path, page)) for path, page in super().get_handlers(app)]

        async def way(self, handler, data, name, person):
            known = self.get_user(name)
            if known is None:
                return False
            may, stored = known.is_authorized, known.password
            if not compare_digest(await hashed(data.get("password") or "", stored), stored):
                return False
            if not may:
                handler.custom_login_error = "An admin has to let you in first."
            return may

        def may_sign_up(self, username, password):
            name = self.normalize_username(username)
            person = self.person(name)
            may = person is not None and person["kind"] != "rehearsal" and not self.user_exists(name)
            return may and self.is_password_strong(password)

        def create_user(self, username, password, **kwargs):
            digest = self.digests.pop((username, password), None)
            if digest is None or not self.may_sign_up(username, password):
                return None
            made = orm.UserInfo(username=self.normalize_username(username), password=digest)
            self.db.add(made)
            self.db.commit()
            return made

    return Native
