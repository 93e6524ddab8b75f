// The explorer page: takes what book/explorer.py computed (explorerData) and shows the part chosen.
"use strict";

const page = document.getElementById("explorer");
const controls = page.querySelector("form").elements;
const words = document.getElementById("explorer-words");
const table = document.getElementById("explorer-table");

const fixed = (value, digits = 3) => value.toFixed(digits).replace("-", "−");
const interval = ({ low, high }) =>
  low === null ? "" : ` (${explorerData.level * 100} % interval ${fixed(low)} to ${fixed(high)})`;

/** Everything about the present choice, in one object. */
function chosen() {
  const setting = explorerData.settings[controls.setting.value];
  const [target, score] = [controls.target.value, controls.score.value];
  const asked = controls.orientation.value;
  const paper = setting.paper_inverts.includes(score) ? "inverted" : "released";
  const orientation = asked === "paper" ? paper : asked;
  const { means, cells } = setting[orientation];
  const title = explorerData.scores[score] + (orientation === "inverted" ? ", inverted" : "");
  const { regret, first, ...cell } = cells[target][score];
  const about = setting.targets[target];
  const rows = about.sources.map((source, i) => ({
    label: about.labels[i],
    score: cell.values[i],
    place: cell.places[i],
    auc: about.auc[i],
    truePlace: about.places[i],
    first: first.includes(source),
  }));
  const of = Object.keys(setting.targets).length;
  return { target, title, cell, regret, rows, about, mean: means[score], of, unlike: orientation !== paper };
}

/** What the choice shows, in sentences: τ, its interval, the first choice and its regret. */
function sentences({ target, title, cell, regret, rows, mean, of, about, unlike }) {
  const agreement =
    cell.tau === null
      ? "Weighted Kendall τ is undefined: the score is the same for every source."
      : `Weighted Kendall τ = ${fixed(cell.tau)}${interval(cell)}, from ${rows.length} sources.` +
        (cell.low === null
          ? " No interval: the score has too few different values."
          : cell.low <= 0 && cell.high >= 0
            ? " The interval holds 0: no agreement at all is not ruled out."
            : "");
  const first = rows.filter((row) => row.first);
  const best = rows.filter((row) => row.truePlace === 1).map((row) => row.label).join(" and ");
  const names =
    first.length > 3 ? `${first.length} sources, tied` : first.map((row) => row.label).join(" and ");
  const outcome =
    regret === 0
      ? `First choice: ${names}, which is the best source. Regret 0.`
      : `First choice: ${names}. Best: ${best}. Regret ${fixed(regret, 4)} AUC.`;
  const scale =
    `A source drawn at random gives away ${fixed(about.by_chance, 4)} on average, ` +
    `the worst ${fixed(about.worst, 4)}.`;
  return [
    `${title}, on ${target}` + (unlike ? " (not the paper's orientation)." : "."),
    agreement,
    `${outcome} ${scale}`,
    `Mean τ over ${mean.targets === of ? `all ${of} targets` : `the ${mean.targets} targets where it is defined`}: ` +
      `${fixed(mean.mean)}${interval(mean)}.`,
  ];
}

function element(name, text, attributes = {}) {
  return Object.assign(document.createElement(name), { textContent: text }, attributes);
}

function fillTable({ target, title, rows }) {
  table.caption.textContent = `${title}, on ${target}: in the score's order`;
  const ordered = [...rows].sort((a, b) => a.place - b.place || a.truePlace - b.truePlace);
  table.tBodies[0].replaceChildren(
    ...ordered.map((row) => {
      const line = document.createElement("tr");
      line.append(
        element("td", row.place),
        element("th", row.label, { scope: "row" }),
        element("td", fixed(row.score, 4)),
        element("td", fixed(row.auc, 4)),
        element("td", row.truePlace),
      );
      return line;
    }),
  );
}

/** Colour of the theme in force, by the name of a CSS variable. */
const colour = (name) => getComputedStyle(page).getPropertyValue(name).trim();

function look(row) {
  if (row.first && row.truePlace === 1) return ["star", "--explorer-both", 17];
  if (row.first) return ["diamond", "--explorer-first", 15];
  if (row.truePlace === 1) return ["square", "--explorer-best", 11];
  return ["circle", "--explorer-other", 8];
}

/** Offsets that keep names off each other and off the points, where there is room for that. */
function besides(points, plot) {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = "12px Helvetica, Arial, sans-serif";
  const [width, height] = [plot.inner_width, plot.inner_height];
  const across = (x) => ((x - plot.x_range.start) / (plot.x_range.end - plot.x_range.start)) * width;
  const down = (y) => (1 - (y - plot.y_range.start) / (plot.y_range.end - plot.y_range.start)) * height;
  const taken = points.map(({ x, y }) => [across(x) - 5, down(y) - 5, across(x) + 5, down(y) + 5]);
  return points.map(({ x, y, label }) => {
    const [left, top, wide] = [across(x), down(y), pen.measureText(label).width];
    const tries = [10, -10 - wide, -wide / 2].flatMap((dx) => [0, -13, 13, -24, 24, -36, 36].map((dy) => [dx, dy]));
    const boxes = tries
      .filter(([dx, dy]) => dy || dx !== -wide / 2)
      .map(([dx, dy]) => ({ dx, dy, box: [left + dx, top + dy - 6, left + dx + wide, top + dy + 6] }));
    const cost = ({ dy, box: [a, b, c, d] }) =>
      taken.filter(([e, f, g, h]) => a < g && e < c && b < h && f < d).length * 100 +
      (a < 0 || c > width || b < 0 || d > height ? 300 : 0) + Math.abs(dy);
    const place = boxes.reduce((one, other) => (cost(other) < cost(one) ? other : one));
    taken.push(place.box);
    return place;
  });
}

function span(range, values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = (high - low || 1) * 0.08;
  Object.assign(range, { start: low - room, end: high + room });
}

function draw({ target, title, rows }, plot) {
  const points = rows.map((row) => ({ x: row.score, y: row.auc, label: row.label }));
  span(plot.x_range, points.map(({ x }) => x));
  span(plot.y_range, points.map(({ y }) => y));
  const looks = rows.map(look);
  const offsets = besides(points, plot);
  plot.document.get_model_by_name("points").data = {
    x: points.map(({ x }) => x),
    y: points.map(({ y }) => y),
    label: points.map(({ label }) => label),
    marker: looks.map(([marker]) => marker),
    fill: looks.map(([, name]) => colour(name)),
    size: looks.map(([, , size]) => size),
    dx: offsets.map(({ dx }) => dx),
    dy: offsets.map(({ dy }) => dy),
    align: offsets.map(() => "left"),
  };
  const [ink, faint] = [colour("--pst-color-text-base"), colour("--pst-color-border")];
  for (const axis of [...plot.below, ...plot.left])
    Object.assign(axis, {
      axis_label_text_color: ink,
      major_label_text_color: ink,
      axis_line_color: ink,
      major_tick_line_color: ink,
    });
  for (const grid of plot.center) Object.assign(grid, { grid_line_color: faint });
  plot.document.get_model_by_name("labels").glyph.text_color = { value: ink };
  plot.below[0].axis_label = title;
  const about = `Scatter plot for ${target}: ${title} across, test AUC upwards, a point a source`;
  document.getElementById("explorer-chart").setAttribute("aria-label", about);
}

function fill(select, entries) {
  select.replaceChildren(...entries.map(([value, text]) => element("option", text, { value })));
}

function fillTargets() {
  const before = controls.target.value;
  const targets = Object.keys(explorerData.settings[controls.setting.value].targets);
  fill(controls.target, targets.map((target) => [target, target]));
  if (targets.includes(before)) controls.target.value = before;
}

async function start() {
  fill(controls.setting, Object.entries(explorerData.settings).map(([name, { title }]) => [name, title]));
  fillTargets();
  const scores = Object.entries(explorerData.scores);
  fill(controls.score, scores);
  page.hidden = false;
  let plot = null;
  const show = () => {
    const choice = chosen();
    words.replaceChildren(...sentences(choice).map((sentence) => element("p", sentence)));
    fillTable(choice);
    if (plot) draw(choice, plot);
  };
  controls.setting.addEventListener("change", fillTargets);
  page.querySelector("form").addEventListener("change", show);
  show();
  await Bokeh.embed.embed_item(explorerData.chart, "explorer-chart");
  plot = Bokeh.documents[0].get_model_by_name("plot");
  show();
  plot.properties.inner_width.change.connect(show);
  new MutationObserver(show).observe(document.documentElement, { attributeFilter: ["data-theme"] });
}

start();
