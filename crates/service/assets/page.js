// What the scripts of all pages share: calls of the API, elements, and how numbers and times are written.

const TIMEOUT = 15000;

/** A refusal by the server, from its problem document. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `the server answered ${status}`);
    this.status = status;
  }
}

// The server's clock minus this one, in ms.
let skew = 0;
export const now = () => Date.now() + skew;

/** The URL of a path here, without a password that the page's own URL may have: requests are refused with one in it. */
export const here = (path) => new URL(path, location.origin);

export async function call(path, method = "GET", body = undefined) {
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  const signal = AbortSignal.timeout(TIMEOUT);
  const answer = await fetch(here(path), { method, headers, signal, cache: "no-store", body: JSON.stringify(body) });
  const date = Date.parse(answer.headers.get("date"));
  // The header has whole seconds.
  if (Math.abs(date - now()) > 2000) skew = date - Date.now();
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
  return answer.json();
}

export const $ = (id) => document.getElementById(id);

/** An element with attributes and children. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Sets a text; nothing happens to a selection or a screen reader if it is the same. */
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

const integer = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
export const whole = (number) => integer.format(number);
export const short = (number) => (number < 10000 ? integer.format(Math.round(number * 10) / 10) : compact.format(number));
export const plural = (number, word) => `${whole(number)} ${word}${number === 1 ? "" : "s"}`;

const UNITS = { ms: 1, s: 1000, m: 60000, h: 3600000, d: 86400000 };

/** A duration of the API ("71h 59m"), in ms. */
export function parseDuration(written) {
  return [...written.matchAll(/(\d+)(ms|s|m|h|d)/g)].reduce((sum, [, count, unit]) => sum + count * UNITS[unit], 0);
}

/** A duration in its largest unit. */
export function duration(ms) {
  if (ms < 1000) return "under 1 s";
  if (ms < 100 * UNITS.s) return `${Math.round(ms / UNITS.s)} s`;
  if (ms < 100 * UNITS.m) return `${Math.round(ms / UNITS.m)} min`;
  if (ms < 48 * UNITS.h) return `${Math.round(ms / UNITS.h)} h`;
  return `${Math.round(ms / UNITS.d)} d`;
}

/** Latency, in ms. */
export const latency = (ms) => (ms < 10000 ? `${whole(ms)} ms` : `${short(ms / 1000)} s`);

/** A time of the API, to the second. */
export const moment = (time) => (time ? time.slice(0, 19).replace("T", " ") : "–");

/** A rate over the last minute, from values of a counter. */
export class Rate {
  #samples = [];
  #of = null;

  /** `of` is what is counted: another one begins anew. */
  add(at, value, of) {
    const last = this.#samples.at(-1);
    if (this.#of !== of || (last && last.value > value)) this.#samples = [];
    this.#of = of;
    this.#samples.push({ at, value });
    while (at - this.#samples[0].at > 60000) this.#samples.shift();
  }

  /** For how long there are samples, in ms. */
  get span() {
    return this.#samples.length ? this.#samples.at(-1).at - this.#samples[0].at : 0;
  }

  /** Null before there is one. */
  get perSecond() {
    if (this.span < 1000) return null;
    return ((this.#samples.at(-1).value - this.#samples[0].value) * 1000) / this.span;
  }
}
