"""Of schemathesis, for deploy/api-check: lines of JSON are sent as the text that the document gives or a test generates."""

import schemathesis

schemathesis.serializer.alias("application/x-ndjson", "text/plain")
