// The pipeline, from /status: rates, lag, intake over TCP, health. What is not known is not shown as zero.
import { $, Rate, duration, el, plural, short, text, whole } from "./page.js";
import { Chart } from "./chart.js";

// Lag in seconds of the accepted rate from which on counts are behind; and the records that are no lag at any rate.
const BEHIND_SECONDS = 5;
const BEHIND_RECORDS = 1000;

export class Pipeline {
  constructor(fetchJson) {
    this.fetchJson = fetchJson;
    this.status = null;
    this.rates = [];
    this.tcp = new Rate();
    this.trouble = null;
    this.chart = new Chart($("ingest-chart"), {
      series: [{ label: "accepted", color: "--users" }],
      height: 130,
      time: (seconds) => new Date(seconds * 1000).toISOString().slice(11, 19),
    });
  }

  /** Loads and draws; `trouble` then names what keeps counts from moving, if anything does. */
  async load(countedAt) {
    const last = this.status;
    const status = await this.fetchJson("/status");
    $("pipeline").classList.toggle("stale", status === null);
    text($("age"), countedAt ? duration(Date.now() - countedAt) : "–");
    if (status === null) {
      this.trouble = "pipeline unknown";
      for (const item of $("health").children) item.className = "unknown";
      text($("lag"), "not known");
      return;
    }
    this.status = status;
    this.drawRate(status, last);
    this.drawTcp(status);
    this.drawLag(status);
    this.drawHealth(status);
    numbers($("reads"), Object.entries(status.reads).filter(([, count]) => count > 0), "No reads yet.");
    numbers($("refused"), Object.entries(status.refused), "No events refused.", "warn");
    text($("about"), `Version ${status.version}, engine ${status.engine}`);
    this.drawLinks(status);
  }

  /** What leads to other listeners: where they are as seen from here. */
  drawLinks({ admin, command_url: command }) {
    const url = admin && seenFromHere(admin);
    $("metrics").hidden = !url;
    if (url) $("metrics").href = `${url}/metrics`;
    $("first").hidden = !command;
    if (command) text($("first-event"), `curl -d 'user=alice&event=click' ${command.replace(/\/+$/, "")}/analytics`);
  }

  drawRate(status, last) {
    if (status.accepted === null) {
      text($("ingest"), "not available");
      return;
    }
    if (!last || last.accepted === null || status.accepted < last.accepted || status.at <= last.at) return;
    const rate = ((status.accepted - last.accepted) * 1000) / (status.at - last.at);
    this.rates = [...this.rates, [status.at, rate]].slice(-150);
    text($("ingest"), short(rate));
    $("ingest-chart").dataset.points = this.rates.length;
    if (this.rates.length > 1) this.chart.show([this.rates.map(([at]) => at / 1000), this.rates.map(([, rate]) => rate)]);
  }

  drawTcp({ tcp, at }) {
    $("tcp").hidden = tcp === null;
    if (tcp === null) return;
    this.tcp.add(at, tcp.acknowledged, "acknowledged");
    const rate = this.tcp.perSecond;
    text($("tcp-rate"), rate === null ? "–" : short(rate));
    const refused = Object.entries(tcp.refused).map(([word, count]) => [`Refused since start: ${word}`, count, "warn"]);
    const connections = tcp.connections_refused ? [["Connections refused since start", tcp.connections_refused, "warn"]] : [];
    const rows = [["Open connections", tcp.connections], ["Acknowledged since start", tcp.acknowledged], ["In the journal since start", tcp.journaled]];
    numbers($("tcp-facts"), [...rows, ...refused, ...connections], "");
  }

  drawLag(status) {
    const roles = Object.entries(status.lag).map(([role, partitions]) => {
      const lags = Object.entries(partitions);
      const total = lags.reduce((sum, [, lag]) => sum + lag, 0);
      const [worst, most] = lags.reduce((worst, one) => (one[1] > worst[1] ? one : worst), ["", 0]);
      const mostOf = lags.length > 1 && most > 0 ? `, most in partition ${worst}: ${whole(most)}` : "";
      return [`${role}${mostOf}`, total, total > BEHIND_RECORDS ? "warn" : ""];
    });
    const unreachable = status.unreachable.length > 0;
    const total = roles.reduce((sum, [, lag]) => sum + lag, 0);
    // A process that cannot be reached does not report its lag: the others' is not the lag.
    text($("lag"), unreachable ? "not known" : roles.length ? whole(total) : "not available");
    $("lag").classList.toggle("warn", unreachable || total > BEHIND_RECORDS);
    numbers($("lag-rows"), roles, "");
    const lag = Object.values(status.lag.processor ?? {}).reduce((sum, lag) => sum + lag, 0);
    const rate = this.rates.at(-1)?.[1] ?? 0;
    const down = status.health.filter(({ ready }) => !ready).map(({ name }) => name);
    const behind = lag > Math.max(BEHIND_RECORDS, BEHIND_SECONDS * rate);
    // What the reader of the log found is true whoever counts, or does not.
    const counting = status.counting && status.counting[0].toUpperCase() + status.counting.slice(1);
    this.trouble = counting ? counting : down.length ? `not ready: ${down.join(", ")}` : behind ? `behind by ${plural(lag, "event")}` : null;
  }

  drawHealth({ health }) {
    const times = new Map();
    for (const { name } of health) times.set(name, (times.get(name) ?? 0) + 1);
    $("health").replaceChildren(...health.map(({ name, process, ready }) => {
      const at = process && times.get(name) > 1 ? ` at ${process}` : "";
      return el("li", { class: ready ? "ok" : "bad" }, `${name}${at}: ${ready ? "ready" : "not ready"}`);
    }));
  }
}

/** The URL of a listener; null for one on loopback of another machine. */
function seenFromHere(listener) {
  const url = new URL(`http://${listener}`);
  if (["0.0.0.0", "[::]"].includes(url.hostname)) url.hostname = location.hostname;
  const local = (name) => name === "localhost" || name === "[::1]" || name.startsWith("127.");
  return local(url.hostname) && !local(location.hostname) ? null : url.origin;
}

/** A list of names and numbers; `kind` is the class of all, a third entry that of one. */
function numbers(list, rows, placeholder, kind = "") {
  if (!rows.length && placeholder) {
    list.replaceChildren(el("div", {}, el("dt", {}, placeholder)));
    return;
  }
  list.replaceChildren(...rows.map(([name, value, own]) =>
    el("div", { class: own ?? kind }, el("dt", {}, name), el("dd", {}, whole(value)))));
}
