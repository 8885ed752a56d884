"""What people see of the documents the API answers with: HTML and SVG, made on the server.

Parsed documents in, bytes out: nothing here reads the store or knows who asks, so a page shows what
the JSON document beside it says and no more. No scripts; the one style sheet is in the page, and
the policy names it by its hash.
"""
