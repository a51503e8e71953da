"""Who gets in. Whatever the way to log in: only the people of this cluster, by people.json, as it is now.

:class:`People` stands before each way's own class. It lets in whoever the way has proved and people.json names, makes
admins and instructors, and slows down guessing.
"""

import re
import time
from hmac import compare_digest
from inspect import isawaitable

from hub_facts import Fresh
from jupyterhub.auth import Authenticator, PAMAuthenticator
from tornado import web

NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
INSTRUCTORS = "instructors"
WRONG = {"pair": 5, "name": 20, "address": 300}
"""Wrong passwords that cost nothing: of one address for one name, for one name, and of one address (a class's)."""
LONGEST_WAIT = 30.0
FORGET = 900.0
MOST_KNOWN = 20_000


class Throttle:
    """Counts wrong passwords; after some, each next try has to wait longer, 30 seconds at most. In memory.

    A try counts as wrong before it is looked at: many at the same moment are no more than many one after another.
    """

    def __init__(self, clock=time.monotonic, class_size=0):
        self._clock = clock
        self._free = {**WRONG, "address": max(WRONG["address"], 10 * class_size)}
        self._wrong = {}
        self._known = set()  # addresses from which a name was once rightly used: guesses from elsewhere are not theirs

    def _keys(self, address, name):
        return {"pair": (address, name), "name": (None, name), "address": (address, None)}

    def _count(self, kind, key, now):
        """How many, and when the last one was. What a class mistypes behind one address is forgotten as it goes."""
        count, last = self._wrong.get(key, (0, now))
        if kind == "address":
            return max(0.0, count - (now - last) * self._free[kind] / FORGET), last
        return (0 if now - last > FORGET else count), last

    def wait(self, address, name):
        """Seconds until somebody there may try this name again."""
        now, longest = self._clock(), 0.0
        own = self._wrong.get((address, name))
        for kind, key in self._keys(address, name).items():
            count, last = self._count(kind, key, now)
            over = count - self._free[kind]
            if kind == "address":
                # Others there hold nobody up but those who were wrong themselves, and these only from then on.
                over, last = (over, own[1]) if own else (-1, 0.0)
            elif kind == "name" and (address, name) in self._known:
                continue
            if over >= 0:
                longest = max(longest, last + min(LONGEST_WAIT, 2.0 ** min(over, 5)) - now)
        return longest

    def wrong(self, address, name):
        now = self._clock()
        if len(self._wrong) > MOST_KNOWN:
            self._wrong = {key: seen for key, seen in self._wrong.items() if now - seen[1] < FORGET}
        if len(self._wrong) > MOST_KNOWN:
            self._wrong.clear()
        for kind, key in self._keys(address, name).items():
            self._wrong[key] = (self._count(kind, key, now)[0] + 1, now)

    def right(self, address, name):
        """Take back what was counted for a try that was right."""
        self._wrong.pop((address, name), None)
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
        self._known.add((address, name))
        for key in ((None, name), (address, None)):
            count, last = self._wrong.pop(key, (0, 0.0))
            if count > 1:
                self._wrong[key] = (count - 1, last)


def same(given, wanted):
    """Whether two passwords are one, in a time that says nothing; no password is never right."""
    one, other = (str(word or "").encode("utf-8", "replace") for word in (given, wanted))
    return bool(other) and compare_digest(one, other)


def ranked(person):
    """Whether somebody may see and stop others' servers."""
    return person.get("instructor") or person.get("admin")


class People:
    """Before an authenticator in its class's bases."""

    by_form = True
    """Whether people type a name and a password here, and do not come from an identity provider."""

    def __init__(self, **kwargs):
        self.people = Fresh("people.json")
        self.passwords = Fresh("passwords.json")
        self.facts = Fresh("hub.json")
        self.throttle = Throttle(class_size=self.facts().get("class_size") or 0)
        super().__init__(**kwargs)
        # Some ways let everybody in unless they are told whom.
        self.allow_all = False

    def person(self, name):
        return self.people().get("people", {}).get(name)

    # -- who it is -----------------------------------------------------------------------------------------------

    def normalize_username(self, username):
        """Asked for more than once at a log-in, also for what it answered: so nothing but the way it is written."""
        return str(username).strip().lower()

    def validate_username(self, username):
        return bool(NAME.fullmatch(username or "")) and super().validate_username(username)

    # -- whom an identity provider means ---------------------------------------------------------------------------

    addressed = True
    """Whether what the provider calls somebody counts as an e-mail address of which it does not say that it looked."""

    vouched = False
    """Whether an e-mail address is to be believed of which the provider does not say that it looked."""

    def called(self, info):
        """What the provider calls somebody."""
        return super().user_info_to_username(info)

    def user_info_to_username(self, info):
        """The account's name; for a stranger one that is no account's, whatever the provider calls them."""
        try:
            said, email = (str(word or "").strip().lower() for word in (self.called(info), info.get("email")))
        except (ValueError, web.HTTPError) as error:
            if getattr(error, "status_code", 500) < 500:
                raise
            raise web.HTTPError(403, "The identity provider did not say who you are.") from error
        word = info.get("email_verified")
        looked = "" if word is None else str(word).lower()
        emails = {email} if looked == "true" or (self.vouched and not looked) else set()
        if looked == "true" or (self.addressed and not looked):
            emails.add(said)
        elif looked == "false" and said == email:
            said = ""  # anybody may have written it there
        found = f"{said}@provider"
        for name, person in self.people().get("people", {}).items():
            login, mail = (str(person.get(key) or "").lower() for key in ("login", "email"))
            if person["kind"] == "rehearsal":
                continue
            if said and said == (login or (not mail and name)):
                return name
            if mail and mail in emails:
                found = name
        return found

    # -- whether it is true --------------------------------------------------------------------------------------

    async def authenticate(self, handler, data=None, **kwargs):
        if not self.by_form:
            return await settled(super().authenticate(handler, data, **kwargs))
        return await self.typed(handler, data)

    async def typed(self, handler, data):
        """Who it is by name and password; None for nobody."""
        name = self.normalize_username(data.get("username") or "")
        address = self.address(handler.request)
        wait = self.throttle.wait(address, name)
        if wait > 0:
            raise web.HTTPError(429, f"Too many wrong passwords. Try again in {int(wait) + 1} seconds.")
        self.throttle.wrong(address, name)
        person = self.person(name)
        proved = await self.proved(handler, {**data, "username": name}, name, person or {"kind": "nobody"})
        if person is None or not proved:
            return None
        self.throttle.right(address, name)
        return {"name": name}

    def address(self, request):
        """Where somebody is. Only the proxies, which are on the head, are believed when they say that for others."""
        link = getattr(request, "connection", None)
        peer = link.context.address[0] if link else ""
        ours = ("", "127.0.0.1", "::1", self.facts().get("head", {}).get("address"))
        return request.remote_ip if peer in ours else peer

    async def proved(self, handler, data, name, person):
        """Whether this is the person: a rehearsal's accounts and admins by their own passwords, whatever the way."""
        given, passwords = data.get("password") or "", self.passwords()
        if person["kind"] == "rehearsal":
            return same(given, passwords.get("rehearsal"))
        if not self.by_form:
            return False
        if person.get("admin") and same(given, passwords.get("admin")):
            return True
        return person["kind"] != "nobody" and await self.way(handler, data, name, person)

    async def way(self, handler, data, name, person):
        """As the way to log in has it."""
        return bool(await settled(super().authenticate(handler, data)))

    # -- whether they may ----------------------------------------------------------------------------------------

    async def check_allowed(self, username, authentication=None):
        person = self.person(username)
        if person is None or (person["kind"] == "rehearsal" and not self.by_form):
            return False
        allow = self.facts().get("auth", {}).get("allow", {})
        if self.by_form or allow.get("users", True):
            return True
        return await self.ruled(username, authentication, allow)

    async def ruled(self, username, authentication, allow):
        """By the organizations, groups and domains that the spec names."""
        if await settled(super().check_allowed(username, authentication)):
            return True
        info = ((authentication or {}).get("auth_state") or {}).get(getattr(self, "user_auth_state_key", "")) or {}
        domain = str(info.get("email") or "").lower().rpartition("@")[2]
        verified = info.get("email_verified", True) not in (False, "false")
        return bool(domain) and verified and domain in {str(each).lower() for each in allow.get("domains") or []}

    def check_allow_config(self):
        """Everybody who may come is in people.json, and check_allowed looks there."""

    async def is_admin(self, handler, authentication):
        return bool((self.person(authentication["name"]) or {}).get("admin"))

    def _ranked(self, name):
        person = self.person(name) or {}
        return {"admin": bool(person.get("admin")), "groups": [INSTRUCTORS] if ranked(person) else []}

    async def get_authenticated_user(self, handler, data):
        if data is None or self.by_form:
            found = await super().get_authenticated_user(handler, data)
        else:  # a form, where people come from an identity provider: a rehearsal's
            found = await self.typed(handler, data)
        return {**found, **self._ranked(found["name"])} if found else None

    async def refresh_user(self, user, handler=None, **kwargs):
        """Whoever was taken out of people.json is out; a rank given or taken holds within minutes."""
        if self.person(user.name) is None:
            return False
        return {"name": user.name, **self._ranked(user.name)}


async def settled(value):
    """A value, or what comes of waiting for it."""
    return await value if isawaitable(value) else value


class SharedPassword(People, Authenticator):
    """One password for the class, another for those with a rank."""

    async def way(self, handler, data, name, person):
        return same(data.get("password") or "", self.passwords().get("admin" if ranked(person) else "class"))


class Pam(People, PAMAuthenticator):
    """The head's own passwords."""


def authenticator(method):
    """The class for the spec's word.

    Raises:
        ValueError: there is none.
    """
    if method in ("github", "cilogon", "globus", "oidc"):
        from vcluster_provider import provider

        return provider(method)
    if method == "firstuse":
        from vcluster_firstuse import first_use

        return first_use()
    if method == "native":
        from vcluster_native import native

        return native()
    known = {"shared-password": SharedPassword, "pam": Pam}
    if method not in known:
        raise ValueError(f"there is no way to log in called {method}")
    return known[method]
