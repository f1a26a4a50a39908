"""The embedded authorization server: an edge, and the only door to Authlib.

Authlib gives request, grant, client-authentication and error shapes (RFC 6749, 7009, 8414). Its core is synchronous,
so each request to it runs in a worker thread, from which `Core.ask` awaits the store on the event loop.
"""

from mcp_authz.oauth.server import OAuthServer, oauth_routes

__all__ = ["OAuthServer", "oauth_routes"]
