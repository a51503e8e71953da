"""The proxy that runs by itself, without what it says of activity.

It counts any byte, and a tab that is open sends some for ever; what the servers themselves report is what counts.
"""

from jupyterhub.proxy import ConfigurableHTTPProxy


class Proxy(ConfigurableHTTPProxy):
    """Knows of routes alone."""

    async def get_all_routes(self):
        routes = await super().get_all_routes()
        for route in routes.values():
            route["data"].pop("last_activity", None)
        return routes
