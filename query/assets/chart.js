// Line charts over time: uPlot, with a tooltip, a last point that is dashed while its hour runs, and the period before, dotted.
/* global uPlot */
import { el, short } from "./page.js";

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const charts = new Set();
// Beyond so many times points are not drawn.
const MAX_POINTS = 62;

export class Chart {
  /**
   * `series`: `{label, color}` each, and a `width`, so that equal lines do not hide each other. `title(seconds)` and `value(number)`
   * write the tooltip; without them there is none.
   */
  constructor(container, { series, height, time, title, value }) {
    Object.assign(this, { container, series, height, time, title, value, data: null, before: null, running: false, few: true, plot: null });
    charts.add(this);
  }

  static redrawAll() {
    for (const chart of charts) {
      chart.plot?.destroy();
      chart.plot = null;
      chart.draw();
    }
  }

  /**
   * `data`: times in seconds, then the values of each series. `running`: the last time has not ended yet. `before`: the values of
   * each series in the period before.
   */
  show(data, running = false, before = null) {
    const few = data[0].length <= MAX_POINTS;
    if (this.running !== running || this.few !== few || !this.before !== !before) {
      this.plot?.destroy();
      this.plot = null;
    }
    this.data = data;
    this.before = before;
    this.running = running;
    this.few = few;
    this.draw();
  }

  draw() {
    const width = this.container.clientWidth;
    if (!this.data || width === 0) return;
    const [times, ...values] = this.data;
    // The last, running part of each line is a series of its own.
    const ended = this.running ? values.map((series) => [...series.slice(0, -1), null]) : values;
    const tails = this.running ? values.map((series) => series.map((value, index) => (index < series.length - 2 ? null : value))) : [];
    const data = [times, ...ended, ...tails, ...(this.before ?? [])];
    if (this.plot) {
      this.plot.setSize({ width, height: this.height });
      this.plot.setData(data);
      return;
    }
    const grid = { stroke: color("--line"), width: 1 };
    const axis = { stroke: color("--quiet"), grid, ticks: grid };
    const line = ({ label, color: name, hidden, width: own = 2 }, more) => ({ label, stroke: color(name), width: own, show: !hidden, spanGaps: false, ...more });
    this.plot = new uPlot({
      width, height: this.height, padding: [10, 28, 0, 0],
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "UTC"),
      legend: { show: false },
      cursor: { show: Boolean(this.title), y: false, drag: { x: false, y: false }, points: { size: 7 } },
      axes: [{ ...axis, space: 70, values: (_, ticks) => this.ticks(ticks) }, { ...axis, size: 56, space: 40, values: (_, ticks) => ticks.map((tick) => short(tick)) }],
      scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.05, 1)] } },
      series: [{},
        ...this.series.map((series) => line(series, { points: { show: this.few && Boolean(this.title), size: 5 } })),
        ...tails.map((_, index) => line(this.series[index], { dash: [5, 4], points: { show: this.few, size: 5 } })),
        ...(this.before ?? []).map((_, index) => line(this.series[index], { stroke: `${color(this.series[index].color)}b0`, width: 2, dash: [2, 3], points: { show: false } }))],
      hooks: this.title ? { setCursor: [(plot) => this.showTip(plot)] } : {},
    }, data, this.container);
  }

  /** Tick labels; one that repeats its neighbor is left out. */
  ticks(seconds) {
    const labels = seconds.map(this.time);
    return labels.map((label, index) => (label === labels[index - 1] ? "" : label));
  }

  toggle(index, hidden) {
    this.series[index].hidden = hidden;
    if (!this.plot) return;
    for (let at = index + 1; at < this.plot.series.length; at += this.series.length) this.plot.setSeries(at, { show: !hidden });
  }

  showTip(plot) {
    this.tip?.remove();
    const { idx, left } = plot.cursor;
    if (idx === null || idx === undefined || left < 0) return;
    const [times, ...values] = this.data;
    const written = (value) => (value === null || value === undefined ? "–" : this.value(value));
    const lines = this.series.flatMap(({ label, hidden }, index) => {
      const before = this.before ? ` (before: ${written(this.before[index][idx])})` : "";
      return hidden ? [] : [el("span", {}, label, el("span", {}, written(values[index][idx]) + before))];
    });
    const running = this.running && idx === times.length - 1 ? ", so far" : "";
    this.tip = el("div", { class: "tip" }, el("b", {}, this.title(times[idx]) + running), ...lines);
    this.container.append(this.tip);
    const at = plot.over.offsetLeft + plot.valToPos(times[idx], "x");
    const right = at + this.tip.offsetWidth + 24 > this.container.clientWidth;
    this.tip.style.left = `${Math.max(0, right ? at - this.tip.offsetWidth - 12 : at + 12)}px`;
  }
}
