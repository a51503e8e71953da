"""What counts as the use of a server, by which the Hub ends those that nobody uses: what people do and compute.

As it comes, a cell that says nothing for an hour is none, and a tab that is in front is for ever: JupyterLab asks for
kernels, sessions and files every few seconds.
"""

from jupyter_server._tz import utcnow
from jupyter_server.base.handlers import APIHandler
from jupyter_server.serverapp import ServerWebApplication

LOOKS = ("GET", "HEAD", "OPTIONS")


def watch():
    """Count like that from here on, in this server."""
    asked, last = APIHandler.update_api_activity, ServerWebApplication.last_activity

    def update_api_activity(handler):
        if handler.request.method not in LOOKS:
            asked(handler)

    def last_activity(application):
        kernels = application.settings["kernel_manager"]
        states = [getattr(kernels.get_kernel(each), "execution_state", "") for each in kernels.list_kernel_ids()]
        return utcnow() if "busy" in states else last(application)

    APIHandler.update_api_activity, ServerWebApplication.last_activity = update_api_activity, last_activity
