"use strict";
// Shows the values under the pointer. A figure carries them as JSON beside its SVG.
const number = (v) => v === null ? "none" : Number(v.toPrecision(4)).toString();

function position(at, [low, high], log) {
  return log ? low * (high / low) ** at : low + at * (high - low);
}

function linesAt(axes, x) {
  const distance = axes.log[0] ? (v) => Math.abs(Math.log(v / x)) : (v) => Math.abs(v - x);
  const found = [];
  let nearest = null;
  for (const line of axes.lines) {
    let best = -1;
    line.x.forEach((v, i) => {
      if (v !== null && line.y[i] !== null && (best < 0 || distance(v) < distance(line.x[best]))) best = i;
    });
    if (best < 0) continue;
    if (nearest === null || distance(line.x[best]) < distance(nearest)) nearest = line.x[best];
    found.push([line, best]);
  }
  const rows = found.filter(([line, i]) => line.x[i] === nearest)
    .map(([line, i]) => `${line.name ? line.name + ": " : ""}${number(line.y[i])}`);
  return nearest === null ? null : [`${axes.labels[0]} ${number(nearest)}`, ...rows].join("\n");
}

function cellAt(axes, x, y) {
  const within = (edges, v) => edges.findIndex((edge, i) => i + 1 < edges.length && v >= edge && v < edges[i + 1]);
  const column = within(axes.cells.x, x), row = within(axes.cells.y, y);
  if (column < 0 || row < 0) return null;
  return `${axes.labels[0]} ${axes.cells.steps[column]}\nlayer ${row + 1}: ` +
    number(axes.cells.values[row][column]);
}

for (const figure of document.querySelectorAll("figure")) {
  const all = JSON.parse(figure.querySelector("script").textContent);
  const svg = figure.querySelector("svg"), tip = figure.querySelector(".tip");
  svg.addEventListener("pointerleave", () => { tip.style.display = "none"; });
  svg.addEventListener("pointermove", (event) => {
    const seen = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
    const px = (event.clientX - seen.left) / seen.width * view.width;
    const py = (event.clientY - seen.top) / seen.height * view.height;
    let text = null;
    for (const axes of all) {
      const [left, top, width, height] = axes.box;
      const fx = (px - left) / width, fy = 1 - (py - top) / height;
      if (fx < 0 || fx > 1 || fy < 0 || fy > 1) continue;
      const x = position(fx, axes.x, axes.log[0]), y = position(fy, axes.y, axes.log[1]);
      text = axes.cells ? cellAt(axes, x, y) : linesAt(axes, x);
    }
    tip.style.display = text === null ? "none" : "block";
    if (text === null) return;
    tip.textContent = text;
    const room = figure.getBoundingClientRect(), from = event.clientX - room.left + figure.scrollLeft;
    const left = event.clientX + 14 + tip.offsetWidth > room.right ? from - 14 - tip.offsetWidth : from + 14;
    tip.style.left = `${Math.max(0, left)}px`;
    tip.style.top = `${event.clientY - room.top + 14}px`;
  });
}
