"use strict";
// A request is tried with the first media type of its body, and the document has them in the order of their names.
const jsonFirst = (spec) => {
  for (const path of Object.values(spec.paths)) {
    for (const { requestBody } of Object.values(path)) {
      if (!requestBody?.content) continue;
      const { "application/json": json, ...others } = requestBody.content;
      if (json) requestBody.content = { "application/json": json, ...others };
    }
  }
  return spec;
};
fetch("/openapi.json").then((response) => response.json()).then((spec) => {
  SwaggerUIBundle({ spec: jsonFirst(spec), dom_id: "#api", deepLinking: true, validatorUrl: null });
});
