// What is wrong with the page for those who do not see it as others do: a list of texts. The rules are those of WCAG 2.2 A and AA
// that a script can decide; names of what takes the focus are decided by the browser's own tree.
(() => {
  const found = [];
  const shown = (element) => `${element.tagName.toLowerCase()}${element.id ? `#${element.id}` : ""}${element.className ? `.${element.className}` : ""}`;
  const wrong = (element, why) => found.push(`${shown(element)}: ${why}`);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const visible = (element) => element.checkVisibility({ visibilityProperty: true }) && element.getBoundingClientRect().width > 1;

  if (!document.documentElement.lang) found.push("html: no language");
  if (!document.title) found.push("no title");
  if (all("main").length !== 1) found.push("not one main");
  const ids = new Set();
  for (const element of all("[id]")) {
    if (ids.has(element.id)) wrong(element, "the id is taken");
    ids.add(element.id);
  }
  for (const attribute of ["aria-labelledby", "aria-describedby", "aria-controls", "for"]) {
    for (const element of all(`[${attribute}]`)) {
      for (const id of element.getAttribute(attribute).split(/\s+/)) if (!ids.has(id)) wrong(element, `${attribute}: no ${id}`);
    }
  }
  let level = 0;
  // Those for who listens are not seen.
  for (const heading of all("h1, h2, h3, h4, h5, h6").filter((heading) => heading.checkVisibility())) {
    const next = Number(heading.tagName[1]);
    if (next > level + 1) wrong(heading, `follows a heading of level ${level}`);
    if (!heading.textContent.trim()) wrong(heading, "is empty");
    level = next;
  }
  if (all("h1").length !== 1) found.push("not one h1");
  for (const image of all("img:not([alt]), [role=img]:not([aria-label]):not([aria-labelledby])")) wrong(image, "no text");
  for (const cell of all("th:not([scope])")) wrong(cell, "no scope");
  for (const item of all("li")) if (!item.parentElement.matches("ul, ol, menu")) wrong(item, "in no list");
  for (const list of all("ul, ol")) if ([...list.children].some((child) => child.tagName !== "LI")) wrong(list, "has more than items");
  for (const term of all("dt, dd")) if (!term.closest("dl")) wrong(term, "in no list of descriptions");
  for (const element of all("[tabindex]")) if (element.tabIndex > 0) wrong(element, "changes the order of the focus");
  for (const element of all("[aria-hidden=true]")) if (element.querySelector("a, button, input, select, [tabindex]")) wrong(element, "hides what takes the focus");
  for (const element of all("[aria-pressed], [aria-expanded]")) {
    if (!/^(true|false)$/.test(element.ariaPressed ?? element.ariaExpanded)) wrong(element, "neither true nor false");
  }
  if (all("meta[name=viewport]").some(({ content }) => /user-scalable=no|maximum-scale/.test(content))) found.push("cannot be scaled");

  // --- contrast ---

  const parse = (color) => {
    const [red, green, blue, alpha = 1] = color.match(/[\d.]+/g).map(Number);
    return { rgb: [red, green, blue], alpha };
  };
  const over = (top, alpha, bottom) => top.map((channel, index) => channel * alpha + bottom[index] * (1 - alpha));
  const luminance = (rgb) => {
    const [red, green, blue] = rgb.map((channel) => (channel <= 10.31 ? channel / 3294.6 : ((channel / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    const { rgb, alpha } = parse(getComputedStyle(element).backgroundColor);
    return alpha === 1 ? rgb : over(rgb, alpha, ground(element.parentElement));
  };
  const opacity = (element) => (element ? Number(getComputedStyle(element).opacity) * opacity(element.parentElement) : 1);
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !visible(element) || element.closest("[disabled], option, script, style, noscript")) continue;
    const style = getComputedStyle(element);
    const [size, behind, { rgb, alpha }] = [parseFloat(style.fontSize), ground(element), parse(style.color)];
    const [one, other] = [luminance(over(rgb, alpha * opacity(element), behind)), luminance(behind)];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    const least = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if (contrast < least) wrong(element, `"${texts.currentNode.data.trim().slice(0, 20)}" has a contrast of ${contrast.toFixed(2)}`);
  }
  return found;
})()
