"use strict";
// A request is tried with the first media type of its body, and the document has them in the order of their names.
// HEAD is GET without the body. Groups that are not about data come last.
const LAST = ["Page", "Dashboard", "Registry", "Health", "About"];
const arrange = (spec) => {
  const groups = new Set();
  for (const path of Object.values(spec.paths)) {
    delete path.head;
    for (const { requestBody, tags = [] } of Object.values(path)) {
      for (const tag of tags) groups.add(tag);
      if (!requestBody?.content) continue;
      const { "application/json": json, ...others } = requestBody.content;
      if (json) requestBody.content = { "application/json": json, ...others };
    }
  }
  const place = (name) => LAST.indexOf(name);
  spec.tags = [...groups].sort((one, other) => place(one) - place(other)).map((name) => ({ name }));
  return spec;
};
// The style sheet has dark colors for this class.
const dark = matchMedia("(prefers-color-scheme: dark)");
const color = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", color);
color();
fetch("/openapi.json").then((response) => response.json()).then((spec) => {
  SwaggerUIBundle({ spec: arrange(spec), dom_id: "#api", deepLinking: true, validatorUrl: null });
});
