// One subscription: its row, and the panel below it with attempts and dead letters.
import { confirm } from "./confirm.js";
import { $, Rate, call, duration, el, latency, moment, now, parseDuration, plural, short, text, whole } from "./page.js";

const LETTERS = 50;
// A list of dead letters is a scan of the log: rarely, and see topics.js.
const LETTERS_AGE = 30000;
const EXPIRES_SOON = 3600000;
const STALLED = 20000;
const REASONS = { "endpoint-gone": "suspended: endpoint gone", "endpoint-failing": "suspended: endpoint failed for days" };

export class SubscriptionRow {
  constructor(topic, name, { open, onToggle }) {
    this.topic = topic;
    this.name = name;
    this.path = `/v1/topics/${encodeURIComponent(topic)}/subscriptions/${encodeURIComponent(name)}`;
    this.rate = new Rate();
    this.view = null;
    this.letters = null;
    this.lettersAt = -Infinity;
    this.mode = el("small");
    this.state = el("span", { class: "state" });
    this.figures = Array.from({ length: 7 }, () => ({ element: el("span", { class: "figure" }), value: el("b"), label: el("small") }));
    for (const { element, value, label } of this.figures) element.append(value, " ", label);
    const title = el("span", { class: "name" }, name, " ", this.mode);
    this.summary = el("summary", {}, title, " ", this.state, ...this.figures.flatMap(({ element }) => [" ", element]));
    this.element = el("details", { class: "subscription", "data-name": name }, this.summary);
    this.element.open = open;
    this.element.addEventListener("toggle", () => onToggle(this.element.open));
  }

  get isOpen() {
    return this.element.open;
  }

  /** When its dead letters are read next; never if it can have none. */
  get lettersDue() {
    const { mode, max_attempts, in_retry } = this.view;
    const may = mode === "push" || max_attempts !== null || in_retry > 0 || this.isOpen;
    return may ? this.lettersAt + LETTERS_AGE : Infinity;
  }

  get needsAttention() {
    return this.stateNow.kind === "warn" || this.stateNow.kind === "bad" || this.letterCount > 0;
  }

  get letterCount() {
    return this.letters ? this.letters.list.length : 0;
  }

  update(view, at) {
    this.view = view;
    this.rate.add(at, view.settled, view.epoch);
    this.draw();
  }

  /** Draws what it has. Every second, for the times in it. */
  draw() {
    const { view } = this;
    const state = (this.stateNow = stateOf(view, this.rate));
    text(this.mode, view.mode);
    this.state.className = `state ${state.kind}`;
    text(this.state, state.words);
    const rate = this.rate.perSecond;
    const oldest = view.oldest_unacked_at && now() - Date.parse(view.oldest_unacked_at);
    const next = view.next_attempt_at && Date.parse(view.next_attempt_at) - now();
    const recent = view.recent_attempts;
    const figures = [
      [whole(view.backlog), "waiting", view.backlog === 0 && "none"],
      oldest === null ? ["–", "oldest", "none"] : [duration(oldest), "oldest"],
      rate === null ? ["–", "settled/s", "none"] : [short(rate), "settled/s", rate === 0 && "none"],
      ...(view.mode === "push" ? pushed(recent) : [[whole(view.leased), "leased", view.leased === 0 && "none"], inRetry(view)]),
      next === null ? ["–", "next attempt", "none"] : [next > 500 ? `in ${duration(next)}` : "now", "next attempt"],
      this.letters === null ? ["–", "dead letters", "none"] : [this.lettersText, "dead letters", this.letterCount ? "bad" : "none"],
    ];
    figures.forEach(([value, label, kind], index) => {
      const figure = this.figures[index];
      figure.element.className = `figure ${kind || ""}`;
      text(figure.value, value);
      text(figure.label, label);
    });
    if (this.isOpen) this.drawPanel();
  }

  get lettersText() {
    return this.letters.more ? `${this.letterCount}+` : whole(this.letterCount);
  }

  async loadLetters() {
    this.lettersAt = performance.now();
    const { dead_letters: list, next } = await call(`${this.path}/dead-letters?limit=${LETTERS}`);
    this.letters = { list, more: next !== null };
    this.draw();
  }

  async loadAttempts() {
    if (this.view.mode !== "push") return;
    const { attempts } = await call(`${this.path}/attempts`);
    this.attempts = attempts;
    this.draw();
  }

  // --- the panel ---

  drawPanel() {
    const panel = (this.panel ??= this.buildPanel());
    const { view } = this;
    facts(panel.facts, [
      ["Endpoint", view.push?.url],
      ["In retry", view.in_retry > 0 ? whole(view.in_retry) : null],
      ["Last attempts", view.recent_attempts && `${whole(view.recent_attempts.succeeded)} of ${whole(view.recent_attempts.total)} succeeded`],
      ["Last error", view.last_error],
      ["Settled up to offset", view.position.offset < 0 ? "none" : whole(view.position.offset)],
      ["Oldest is retained for", view.retention_left && duration(parseDuration(view.retention_left))],
      ["Order", view.order === "key" ? "per key" : null],
      ["Attempts at most", view.max_attempts && whole(view.max_attempts)],
      ["Lease", view.ack_deadline],
      ["Filter", view.filter && JSON.stringify(view.filter)],
      ["Owner", view.owner],
    ]);
    text(panel.state, view.state === "suspended" ? "Resume" : "Suspend");
    panel.attempts.hidden = view.mode !== "push";
    table(panel.attemptRows, this.attempts, "No attempts yet.", (attempt) => [
      [moment(attempt.at)], [whole(attempt.offset), "number"], [whole(attempt.attempt), "number"],
      [outcome(attempt.status, attempt.error)], [latency(attempt.latency_ms), "number"], [attempt.answer ?? "", "text"],
    ]);
    const some = this.letterCount > 0;
    panel.redrive.hidden = !some;
    table(panel.letterRows, this.letters?.list, "No dead letters.", (letter) => [
      [moment(letter.dead_lettered_at)], [letter.reason], [whole(letter.attempts), "number"],
      [outcome(letter.last_status, letter.last_error)], [preview(letter.message), "text"],
    ]);
  }

  buildPanel() {
    const of = `${this.topic}/${this.name}`;
    const panel = {
      facts: el("dl", { class: "facts" }),
      attemptRows: rows(`Last attempts of ${of}`, ["Time (UTC)", "#Offset", "#Attempt", "Result", "#Latency", "Answer"]),
      letterRows: rows(`Dead letters of ${of}`, ["Given up (UTC)", "Reason", "#Attempts", "Last result", "Message"]),
      redrive: el("button", { type: "button", class: "redrive" }, "Redrive…"),
      progress: el("p", { class: "progress", role: "status", tabindex: "-1", "aria-label": "Redrive" }),
      state: el("button", { type: "button", class: "suspend" }),
    };
    panel.attempts = el("section", {}, el("h4", {}, "Last attempts"), panel.attemptRows.element);
    const heading = el("div", { class: "heading" }, el("h4", {}, "Dead letters"), panel.redrive);
    const letters = el("section", {}, heading, panel.progress, panel.letterRows.element);
    const buttons = el("p", { class: "buttons" }, panel.state);
    this.element.append(el("div", { class: "panel" }, panel.facts, letters, panel.attempts, buttons));
    panel.redrive.addEventListener("click", () => this.redrive());
    panel.state.addEventListener("click", () => this.suspendOrResume());
    return panel;
  }

  // --- acts ---

  suspendOrResume() {
    const suspended = this.view.state === "suspended";
    const of = `${this.topic}/${this.name}`;
    confirm({
      title: `${suspended ? "Resume" : "Suspend"} ${of}?`,
      about: suspended
        ? "Messages are handed out again, from the position on where it stopped."
        : "No message is handed out until it is resumed. The position stays; messages that outlive their retention meanwhile are lost to it.",
      yes: suspended ? "Resume" : "Suspend",
      act: () => call(`${this.path}:${suspended ? "resume" : "suspend"}`, "POST", {}),
      then: (view) => {
        this.view = view;
        this.draw();
        text($("announcement"), `${of} is ${view.state}.`);
      },
    });
  }

  redrive() {
    const { list, more } = this.letters;
    const statuses = new Map();
    for (const { last_status: status } of list) if (status !== null) statuses.set(status, (statuses.get(status) ?? 0) + 1);
    const which = el("select", { id: "redrive-which" }, el("option", { value: "" }, `All ${more ? `(more than ${list.length})` : `(${list.length})`}`));
    for (const [status, count] of statuses) which.append(el("option", { value: status }, `With status ${status} (${count}${more ? " or more" : ""})`));
    const pace = el("input", { id: "redrive-rate", type: "number", min: "1", max: "100000", step: "1", placeholder: "as fast as possible" });
    confirm({
      title: `Redrive dead letters of ${this.topic}/${this.name}?`,
      about: `Their messages are ${this.view.mode === "push" ? `sent to ${this.view.push.url}` : "handed out"} again, under the same ids, with attempts from 1, and leave this list. A letter whose message is no longer retained stays.`,
      yes: "Redrive",
      fields: [field("Which", which), field("Messages per second", pace)],
      act: () => {
        if (!pace.checkValidity()) throw new Error("Messages per second: 1 to 100,000, or nothing.");
        const filter = {};
        if (which.value) filter.status = Number(which.value);
        if (pace.value) filter.rate = Number(pace.value);
        return call(`${this.path}/dead-letters:redrive`, "POST", filter);
      },
      then: ({ redrive, selected }) => {
        text(this.panel.progress, `Redrive of ${plural(selected, "message")} begun.`);
        // The button may go with the last letter.
        this.panel.progress.focus();
        this.follow(redrive);
      },
    });
  }

  /** Shows how a redrive goes until it has ended. */
  async follow(id) {
    this.redriven = id;
    while (this.redriven === id && this.element.isConnected) {
      try {
        const { state, selected, done, failed } = await call(`${this.path}/redrives/${id}`);
        const failures = failed ? `, ${whole(failed)} failed again` : "";
        text(this.panel.progress, `Redrive ${state}: ${whole(done)} of ${plural(selected, "message")} settled${failures}.`);
        await this.loadLetters();
        if (state !== "running") return;
      } catch (error) {
        text(this.panel.progress, `The redrive goes on; its progress cannot be read: ${error.message}`);
      }
      await new Promise((resume) => setTimeout(resume, 1000));
    }
  }
}

function stateOf(view, rate) {
  if (view.state === "suspended") {
    return view.reason === "api" ? { kind: "idle", words: "suspended" } : { kind: "bad", words: REASONS[view.reason] ?? `suspended: ${view.reason}` };
  }
  if (view.backlog === 0) return { kind: "good", words: "up to date" };
  if (view.mode === "push" && view.last_error) return { kind: "warn", words: `failing: ${view.last_error}` };
  if (view.retention_left && parseDuration(view.retention_left) < EXPIRES_SOON) return { kind: "warn", words: "messages expire" };
  if (view.in_retry > 0) return { kind: "warn", words: "retrying" };
  if (rate.perSecond === 0 && rate.span >= STALLED) return { kind: "warn", words: "no progress" };
  return { kind: "good", words: "active" };
}

function pushed(recent) {
  if (!recent) return [["–", "success", "none"], ["–", "p99", "none"]];
  const percent = (recent.succeeded * 100) / recent.total;
  // Never 100 % with a failure.
  const shown = percent > 99 && percent < 100 ? "99" : String(Math.round(percent));
  return [[`${shown} %`, "success", percent < 90 && "warn"], [latency(recent.p99_ms), "p99"]];
}

const inRetry = ({ in_retry: count }) => [whole(count), "in retry", count ? "warn" : "none"];
const outcome = (status, error) => (status === null ? error ?? "–" : String(status));

function field(label, input) {
  return el("div", { class: "field" }, el("label", { for: input.id }, label), input);
}

function facts(list, pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined);
  const drawn = JSON.stringify(known);
  if (list.drawn === drawn) return;
  list.drawn = drawn;
  list.replaceChildren(...known.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/** A table; `#` marks a column of numbers. */
function rows(label, columns) {
  const heads = columns.map((column) =>
    el("th", column.startsWith("#") ? { scope: "col", class: "number" } : { scope: "col" }, column.replace("#", "")));
  const body = el("tbody");
  const empty = el("p", { class: "quiet" });
  const scroll = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, el("table", {}, el("thead", {}, el("tr", {}, ...heads)), body));
  return { element: el("div", {}, empty, scroll), body, empty, scroll, drawn: "" };
}

function table(target, items, nothing, cells) {
  const drawn = JSON.stringify(items);
  if (target.drawn === drawn) return;
  target.drawn = drawn;
  target.scroll.hidden = !items?.length;
  target.empty.hidden = !target.scroll.hidden;
  text(target.empty, items ? nothing : "Loading…");
  target.body.replaceChildren(...(items ?? []).map((item) =>
    el("tr", {}, ...cells(item).map(([value, kind]) => el("td", kind ? { class: kind } : {}, value)))));
}

/** The beginning of a message, as text if it is text. */
function preview(message) {
  if (!message) return "";
  const cut = (written) => (written.length > 300 ? `${written.slice(0, 300)}…` : written);
  if (message.body !== null && message.body !== undefined) return cut(JSON.stringify(message.body));
  const bytes = Uint8Array.from(atob(message.body_base64 ?? ""), (character) => character.charCodeAt(0));
  try {
    return cut(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return `${plural(bytes.length, "byte")} of ${message.content_type}`;
  }
}
