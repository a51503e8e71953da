"""What the ways to log in share by which the Hub keeps passwords of people's own: firstuse and native."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import bcrypt
from jupyterhub.handlers.login import LoginHandler


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
