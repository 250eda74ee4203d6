const SVG = "http://www.w3.org/2000/svg";
const WIDE_PX = 560;
const HIGH_PX = 220;
const EDGE = { left: 44, right: 12, top: 10, bottom: 26 };

function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter(known));
  return node;
}

/** Three to six round numbers from 0 to a little above the highest. */
function ticksTo(highest) {
  const rough = highest / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  return Array.from({ length: Math.ceil(highest / step) + 1 }, (_, at) => at * step);
}

/** Lines over steps, each with its name and its last value in the legend. */
function curvesOf(figure) {
  const points = figure.lines.flatMap(([, line]) => line).filter(([, value]) => known(value));
  const last = Math.max(...points.map(([step]) => step), 1);
  const ticks = ticksTo(Math.max(...points.map(([, value]) => value), 0));
  const highest = ticks.at(-1) || 1;
  const x = (step) => EDGE.left + ((WIDE_PX - EDGE.left - EDGE.right) * step) / last;
  const y = (value) => HIGH_PX - EDGE.bottom - ((HIGH_PX - EDGE.top - EDGE.bottom) * value) / highest;
  const rules = ticks.map((at) =>
    svg("g", {},
      svg("line", { class: "rule", x1: EDGE.left, x2: WIDE_PX - EDGE.right, y1: y(at), y2: y(at) }),
      svg("text", { class: "tick", x: EDGE.left - 6, y: y(at) + 4, "text-anchor": "end" }, String(Number(at.toPrecision(3)))),
    ),
  );
  const ends = [0, last].map((step) =>
    svg("text", { class: "tick", x: x(step), y: HIGH_PX - 8, "text-anchor": step ? "end" : "start" }, step ? `step ${thousands(step)}` : "0"),
  );
  const lines = figure.lines.map(([name, line], at) => {
    const path = line.filter(([, value]) => known(value)).map(([step, value], n) => `${n ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`);
    return svg("path", { class: `curve c${at % 6}`, d: path.join(" ") }, svg("title", {}, name));
  });
  const legend = figure.lines.map(([name, line], at) => {
    const value = line.at(-1)?.[1];
    return el("li", {}, el("i", { class: `key c${at % 6}`, "aria-hidden": "true" }), `${name} `, el("b", {}, known(value) ? value.toFixed(3) : "–"));
  });
  return [
    svg("svg", { class: "curves", viewBox: `0 0 ${WIDE_PX} ${HIGH_PX}`, role: "img", "aria-label": `${figure.title}, ${figure.unit}` }, ...rules, ...ends, ...lines),
    el("ul", { class: "legend" }, legend),
  ];
}
