"""The way to log in called native."""

from hmac import compare_digest
from types import SimpleNamespace

import bcrypt
from vcluster_auth import People
from vcluster_own import Page, cut, hashed


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
