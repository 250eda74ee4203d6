/** One bar: its label, the bar with its interval, the share, its interval as text, the number of cases. */
function barRow(bar, target) {
  const track = el("span", { class: "track", "aria-hidden": "true" });
  if (known(bar.value)) {
    const fill = el("span", { class: "fill" });
    fill.style.width = percent(within(bar.value), 2);
    track.append(fill);
  }
  if (known(target)) {
    const line = el("span", { class: "target" });
    line.style.left = percent(within(target), 2);
    track.append(line);
  }
  const spans = known(bar.low) && known(bar.high);
  if (spans) {
    const whisker = el("span", { class: "whisker" });
    whisker.style.left = percent(within(bar.low), 2);
    whisker.style.width = percent(within(bar.high) - within(bar.low), 2);
    track.append(whisker);
  }
  const interval = spans ? `${(100 * bar.low).toFixed(1)}–${(100 * bar.high).toFixed(1)}` : "";
  return el(
    "li",
    { class: "bar-row" },
    el("span", { class: "bar-label" }, bar.label),
    track,
    el("span", { class: "bar-value" }, percent(bar.value, 1)),
    el("span", { class: "bar-interval" }, interval),
    el("span", { class: "bar-n" }, known(bar.n) ? `n ${thousands(bar.n)}` : ""),
  );
}

function barChart(figure) {
  const chart = el("div", { class: "bars" });
  if (!figure.bars.some((bar) => known(bar.low) && known(bar.high))) chart.classList.add("no-interval");
  if (!figure.bars.some((bar) => known(bar.n))) chart.classList.add("no-n");
  let group = null;
  let list = null;
  for (const bar of figure.bars) {
    if (list === null || bar.group !== group) {
      group = bar.group;
      list = el("ul", { "aria-label": group || figure.title });
      if (group) chart.append(el("p", { class: "group", "aria-hidden": "true" }, group));
      chart.append(list);
    }
    list.append(barRow(bar, figure.target));
  }
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((at) => {
    const tick = el("span", {}, percent(at));
    tick.style.left = percent(at);
    return tick;
  });
  chart.append(el("div", { class: "axis", "aria-hidden": "true" }, el("span", { class: "ticks" }, ticks)));
  return chart;
}

/** A heat map. Columns are numbered, so that seven voters fit on a phone; rows have numbers and names. */
function heatMap(figure) {
  const highest = Math.max(...figure.values.flat().filter(known), 0) || 1;
  const head = el(
    "tr",
    {},
    el("td", {}),
    figure.columns.length
      ? figure.columns.map((name) => el("th", { scope: "col" }, name))
      : figure.names.map((name, at) => el("th", { scope: "col", abbr: name, title: name }, String(at + 1))),
  );
  const rows = figure.values.map((row, at) => {
    const cells = row.map((value, column) => {
      const other = figure.columns.length ? figure.columns[column] : figure.names[column];
      const title = `${figure.names[at]} and ${other}: ${percent(value, 1)}`;
      const cell = el("td", { title: known(value) ? title : null }, known(value) ? (100 * value).toFixed(1) : "–");
      if (known(value)) {
        // Never the full colour: the text must be readable on all of them.
        cell.style.setProperty("--heat", percent(0.6 * within(value / highest)));
      }
      return cell;
    });
    const number = figure.columns.length ? null : el("b", {}, String(at + 1));
    return el("tr", {}, el("th", { scope: "row" }, number, ` ${figure.names[at]}`), cells);
  });
  const table = el("table", { class: "heat" }, el("thead", {}, head), el("tbody", {}, rows));
  return [
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": figure.title }, table),
    el("p", { class: "scale", "aria-hidden": "true" }, "0%", el("i", {}), percent(highest, 1)),
  ];
}

/** A table of texts. */
function gridOf(figure) {
  const head = el("tr", {}, figure.columns.map((name) => el("th", { scope: "col" }, name)));
  const rows = figure.rows.map((row, at) =>
    el("tr", { class: figure.strong.includes(at) ? "strong" : null }, row.map((text, place) => el(place ? "td" : "th", place ? {} : { scope: "row" }, text))),
  );
  const table = el("table", { class: "grid" }, el("thead", {}, head), el("tbody", {}, rows));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": figure.title }, table);
}

function drawn(figure) {
  if (figure.grid) return gridOf(figure);
  if (figure.lines) return curvesOf(figure);
  return figure.names ? heatMap(figure) : barChart(figure);
}

function showFigures(figures) {
  byId("figures").append(
    ...figures.map((figure) => {
      const heading = el("h2", {}, figure.title);
      const aim = known(figure.target) ? el("p", { class: "aim" }, `target ${percent(figure.target)}`) : null;
      const note = figure.note ? el("p", { class: "note" }, figure.note) : null;
      const caption = el("figcaption", {}, heading, note, aim);
      return el("figure", { class: figure.grid ? "full-width" : null }, caption, drawn(figure));
    }),
  );
}
