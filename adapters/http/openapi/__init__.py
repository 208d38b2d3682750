"""The API's description of itself: ``/openapi.json`` (OpenAPI 3.1), and a page that shows it.

`schemas` turns attrs types into JSON Schemas, `grammar` knows what a type does not say (what an id looks like,
which words there are), `vocabulary` the events and the streams' frames. What there is to say of one
route stands where it is added (`routes`). `document` puts it together and serves it. What a request may look
like is taken from the types that the routes read, an answer from those that they make; the errors from the one table.
"""

from .document import add_openapi, document

__all__ = ["add_openapi", "document"]
