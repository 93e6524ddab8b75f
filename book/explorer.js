// The explorer page: draws what book/explorer.py computed (explorerData), for the sources that the reader keeps.
"use strict";

const page = document.getElementById("explorer");
const form = page.querySelector("form").elements;
const [words, heat, table] = ["words", "heat", "table"].map((name) => document.getElementById(`explorer-${name}`));
const buttons = page.querySelectorAll("button[data-without]");
let out = new Set(); // sources that the reader has left out

const fixed = (value, digits = 3) => value.toFixed(digits).replace(/^-(?=0\.0*$)/, "").replace("-", "−");
const span = ([low, high]) => `${fixed(low)} to ${fixed(high)}`;
const setting = () => explorerData.settings[form.setting.value];
const sum = (values) => values.reduce((one, other) => one + other, 0);
const known = (values) => values.filter((value) => value !== null);

/** Whether a score counts the other way round, under the orientation asked for. */
function inverted(score) {
  if (explorerData.baselines.includes(score)) return false;
  return form.orientation.value === "paper" ? setting().inverted.includes(score) : form.orientation.value === "inverted";
}

/** Values rescaled to 0…1 over themselves and those of the target itself; null where there is no scale. */
function rescaled(values, itself, turned) {
  const [low, high] = [Math.min, Math.max].map((end) => end(...known([...values, ...itself])));
  const scale = (value) => (turned ? high - value : value - low) / (high - low);
  return values.map((value) => (value === null || !(high > low) ? null : scale(value)));
}

/** Rows of one target and score: the sources kept, with score and AUC; missing ones are left out. */
function rowsOf(target, score) {
  const about = setting().targets[target];
  const auc = about.truths[form.truth.value];
  const kept = about.sources.map((_, i) => i).filter((i) => !out.has(about.sources[i]) && auc[i] !== null);
  let values;
  if (score in explorerData.products) {
    const [one, other] = explorerData.products[score].map((term) =>
      rescaled(kept.map((i) => about.scores[term][i]), about.itself[term] ?? [], inverted(score)));
    values = one.map((value, k) => (value === null || other[k] === null ? null : value * other[k]));
  } else {
    const turn = (value) => (value !== null && inverted(score) ? 1 - value : value);
    values = kept.map((i) => turn(about.scores[score][i]));
  }
  const rows = kept.map((i, k) => ({ source: about.sources[i], score: values[k], auc: auc[i] }));
  return rows.filter((row) => row.score !== null);
}

/** Weighted Kendall τ as scipy has it: weights 1/rank, added, the mean over the ranks by either side. */
function tau(rows) {
  const distinct = (of) => new Set(rows.map(of)).size;
  if (rows.length < 3 || distinct((row) => row.score) < 2 || distinct((row) => row.auc) < 2) return null;
  const sign = (side, a, b) => Math.sign(a[side] - b[side]);
  const found = [["score", "auc"], ["auc", "score"]].map(([first, second]) => {
    const weight = rows.map((a) => {
      const better = rows.filter((b) => (sign(first, b, a) || sign(second, b, a)) > 0).length;
      const alike = rows.filter((b) => !sign(first, b, a) && !sign(second, b, a)).length;
      return sum(Array.from({ length: alike }, (_, k) => 1 / (better + k + 1))) / alike;
    });
    const total = (of) => sum(rows.map((a, i) => weight[i] * sum(rows.map((b) => of(a, b)))));
    const apart = [first, second].map((side) => total((a, b) => Math.abs(sign(side, a, b))));
    return total((a, b) => sign(first, a, b) * sign(second, a, b)) / Math.sqrt(apart[0] * apart[1]);
  });
  return sum(found) / 2;
}

const place = (rows, of) => (row) => 1 + rows.filter((other) => of(other) > of(row)).length;
/** Everything about the present choice, in one object. */
function chosen() {
  const { targets, intervals, ceilings, truths, scores } = setting();
  const { target: { value: target }, score: { value: score } } = form;
  const rows = rowsOf(target, score);
  const [byScore, byAuc] = [place(rows, (row) => row.score), place(rows, (row) => row.auc)];
  for (const row of rows) {
    const [first, best] = [byScore(row) === 1, byAuc(row) === 1];
    const kind = first && best ? "both" : first ? "first" : best ? "best" : "other";
    Object.assign(row, { place: byScore(row), truePlace: byAuc(row), kind });
  }
  // Intervals and the noise ceiling are of all sources and of the usual ground truth.
  const whole = ![...out].some((source) => targets[target].sources.includes(source));
  const usual = form.truth.value === Object.keys(truths)[0];
  const spans = whole && usual ? intervals[inverted(score) ? "inverted" : "released"] : {};
  const means = known(Object.keys(targets).map((name) => tau(rowsOf(name, score))));
  return {
    target, score, rows, whole, tau: tau(rows), means, of: Object.keys(targets).length, scores,
    title: explorerData.scores[score] + (inverted(score) ? ", inverted" : ""),
    interval: spans[target]?.[score], meanInterval: spans.mean?.[score], ceiling: ceilings[target],
  };
}

/** What the choice shows, in sentences: τ, its interval, the first choice and its regret, the simple rules. */
function sentences({ rows, title, target, tau, interval, meanInterval, means, ceiling, whole, of }) {
  if (rows.length < 3) return [`${title}, on ${target}: fewer than three sources have it, so there is no order to judge.`];
  const within = (found) => (found && found[0] !== null ? ` (95 % interval ${span(found)})` : "");
  const names = (of) => {
    const found = rows.filter((row) => row[of] === 1).map((row) => row.source);
    return found.length > 3 ? `${found.length} sources, tied` : found.join(" and ");
  };
  const best = Math.max(...rows.map((row) => row.auc));
  const regret = (chosen) => fixed(best - sum(chosen.map((row) => row.auc)) / chosen.length, 4);
  const imagenet = rows.find((row) => row.source === "imagenet");
  return [
    tau === null
      ? `${title}, on ${target}: weighted Kendall τ is undefined, since all values are the same.`
      : `${title}, on ${target}: weighted Kendall τ = ${fixed(tau)}${within(interval)} over ${rows.length} sources.`,
    `First choice: ${names("place")}. Best: ${names("truePlace")}. Regret ` +
      `${regret(rows.filter((row) => row.place === 1))} AUC; of a source drawn at random ${regret(rows)} on average.`,
    imagenet && `Always ImageNet: place ${imagenet.truePlace} of ${rows.length}, regret ${regret([imagenet])}.`,
    ceiling &&
      `${form.setting.value === "replication" ? "τ between folds of the ground truth" : "Noise ceiling"}: ${span(ceiling)}${whole ? "" : " (all sources)"}.`,
    means.length &&
      `Mean τ over ${means.length === of ? `all ${of} targets` : `the ${means.length} targets where it is defined`}: ` +
      `${fixed(sum(means) / means.length)}${within(meanInterval)}.`,
  ].filter(Boolean);
}

const element = (name, text = "", attributes = {}, ...children) => {
  const made = Object.assign(document.createElement(name), { textContent: text }, attributes);
  made.append(...children);
  return made;
};

function shape(parent, name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  parent.append(made);
  return made;
}

/** An empty drawing as wide as its frame, so that letters have the size of those of the page. */
function canvas(name, height) {
  const frame = document.getElementById(name);
  frame.replaceChildren();
  const width = frame.clientWidth;
  return [shape(frame, "svg", { width, height, "aria-hidden": true }), width];
}

const MARKS = { first: "M0-8 8 0 0 8-8 0Z", best: "M-6-6H6V6H-6Z", both: "M0-10 3-3 10-3 4 2 6 9 0 5-6 9-4 2-10-3-3-3Z" };

function mark(svg, row, x, y) {
  const path = MARKS[row.kind] ?? "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0";
  const made = shape(svg, "path", { d: path, transform: `translate(${x},${y})`, class: `explorer-${row.kind}` });
  shape(made, "title", {}, `${row.source}: score ${fixed(row.score, 4)}, test AUC ${fixed(row.auc, 4)}`);
}

/** Score against AUC with the least-squares line, as in the paper's Fig. 5, and the AUC of "always ImageNet". */
function drawScatter({ rows, title }) {
  const height = 380;
  const [svg, width] = canvas("explorer-scatter", height);
  if (rows.length < 2) return;
  const scale = (side, from, to) => {
    const [low, high] = [Math.min, Math.max].map((end) => end(...rows.map((row) => row[side])));
    return Object.assign((value) => from + ((value - low) / (high - low || 1)) * (to - from), { low, high });
  };
  const [x, y] = [scale("auc", 62, width - 30), scale("score", height - 62, 26)];
  shape(svg, "path", { d: `M44 8V${height - 44}H${width - 4}`, class: "explorer-axis" });
  for (const share of width > 420 ? [0, 0.5, 1] : [0, 1]) {
    const [auc, score] = [x, y].map(({ low, high }) => low + share * (high - low));
    shape(svg, "text", { x: x(auc), y: height - 28, "text-anchor": "middle" }, fixed(auc));
    const value = Math.abs(score) < 1000 ? fixed(score, 2) : score.toExponential(0);
    shape(svg, "text", { x: 40, y: y(score) + 4, "text-anchor": "end" }, value);
  }
  shape(svg, "text", { x: width, y: height - 8, "text-anchor": "end" }, "test AUC after fine-tuning");
  shape(svg, "text", { x: 50, y: 14 }, title);
  const imagenet = rows.find((row) => row.source === "imagenet");
  if (imagenet) shape(svg, "path", { d: `M${x(imagenet.auc)} 18V${height - 44}`, class: "explorer-rule" });
  const [auc, score] = ["auc", "score"].map((side) => sum(rows.map((row) => row[side])) / rows.length);
  const spread = (side) => sum(rows.map((row) => (row.auc - auc) * (row[side] - { auc, score }[side])));
  const slope = spread("score") / spread("auc");
  const ends = [x.low, x.high].map((end) => `${x(end)} ${y(score + slope * (end - auc))}`);
  const [across, down] = [width - 48, height - 52]; // the line ends where the axes do
  const inner = shape(svg, "svg", { x: 44, y: 8, width: across, height: down, viewBox: `44 8 ${across} ${down}` });
  if (Number.isFinite(slope)) shape(inner, "path", { d: `M${ends[0]}L${ends[1]}`, class: "explorer-line" });
  const taken = rows.map((row) => [x(row.auc) - 6, y(row.score) - 6, x(row.auc) + 6, y(row.score) + 6]);
  for (const row of rows) {
    mark(svg, row, x(row.auc), y(row.score));
    const label = shape(svg, "text", {}, row.source.replace(/(?<!^med)mnist$/, "")), wide = label.getComputedTextLength();
    const tries = [10, -10 - wide, -wide / 2].flatMap((left) => [0, -14, 14, -26, 26, -38, 38].map((down) => {
      const [a, b] = [x(row.auc) + left, y(row.score) + down];
      const hit = taken.filter(([e, f, g, h]) => a < g && e < a + wide && b - 6 < h && f < b + 6).length;
      const outside = a < 46 || a + wide > width || b < 22 || b > height - 50;
      return { a, b, cost: hit * 100 + outside * 300 + Math.abs(down) };
    }));
    const { a, b, cost } = tries.reduce((one, other) => (other.cost < one.cost ? other : one));
    if (cost < 100) taken.push([a, b - 6, a + wide, b + 6]);
    else label.remove(); // the table has the name
    [["x", a], ["y", b + 4]].forEach((place) => label.setAttribute(...place));
  }
}

/** Both orders beside each other: a line that falls or rises is a source in the wrong place. */
function drawSlopes({ rows }) {
  const [svg, width] = canvas("explorer-slopes", 40 + 24 * rows.length);
  const order = (by) => [...rows].sort((a, b) => a[by] - b[by] || a.truePlace - b.truePlace);
  const [left, right] = [order("place"), order("truePlace")];
  const at = (list, row) => 46 + 24 * list.indexOf(row);
  const [from, to] = [width * 0.38, width * 0.62];
  shape(svg, "text", { x: from, y: 16, "text-anchor": "end" }, "by score");
  shape(svg, "text", { x: to, y: 16 }, "by AUC");
  for (const row of rows) {
    const [a, b] = [at(left, row), at(right, row)];
    shape(svg, "path", { d: `M${from + 6} ${a - 4}L${to - 6} ${b - 4}`, class: `explorer-slope explorer-${row.kind}` });
    shape(svg, "text", { x: from, y: a, "text-anchor": "end" }, `${row.source} ${row.place}`);
    shape(svg, "text", { x: to, y: b }, `${row.truePlace} ${row.source}`);
  }
}

/** τ of every score on every target: each cell is a button that chooses it. */
function drawHeat(now) {
  const heads = ["target", ...now.scores.map((score) => explorerData.scores[score])];
  const taus = Object.keys(setting().targets).map((target) => now.scores.map((score) => tau(rowsOf(target, score))));
  const text = (value) => (value === null ? "–" : fixed(value, 2));
  const rows = Object.entries(setting().targets).map(([target, { title }], i) => {
    const cells = now.scores.map((score, k) => {
      const here = target === now.target && score === now.score;
      const button = element("button", text(taus[i][k]), { type: "button", tabIndex: here ? 0 : -1, ariaPressed: here });
      button.ariaLabel = `${explorerData.scores[score]} on ${target}: τ ${text(taus[i][k])}`;
      Object.assign(button.dataset, { target, score });
      const cell = element("td", "", { className: taus[i][k] < 0 ? "explorer-below" : "explorer-above" }, button);
      cell.style.setProperty("--share", `${Math.round(Math.abs(taus[i][k] ?? 0) * 55)}%`);
      return cell;
    });
    return element("tr", "", {}, element("th", title, { scope: "row" }), ...cells);
  });
  const means = now.scores.map((_, k) => known(taus.map((line) => line[k])));
  const foot = means.map((values) => element("td", values.length ? text(sum(values) / values.length) : "–"));
  heat.tHead.replaceChildren(element("tr", "", {}, ...heads.map((head) => element("th", head, { scope: "col" }))));
  heat.tBodies[0].replaceChildren(...rows);
  heat.tFoot.replaceChildren(element("tr", "", {}, element("th", "mean", { scope: "row" }), ...foot));
}

function drawTable({ rows, target, title }) {
  const dropped = setting().targets[target].sources.filter((source) => !rows.some((row) => row.source === source));
  const ordered = [...rows].sort((a, b) => a.place - b.place || a.truePlace - b.truePlace);
  table.caption.textContent = `${title}, on ${target}: in the score's order. Untick a source to leave it out.`;
  const lines = [...ordered, ...dropped.map((source) => ({ source }))].map(({ source, place, score, auc, truePlace }) => {
    const box = element("input", "", { type: "checkbox", name: source, checked: !out.has(source) });
    const cells = place ? [place, fixed(score, 4), fixed(auc, 4), truePlace] : ["–", "–", "–", "–"];
    const name = element("th", "", { scope: "row" }, element("label", "", {}, box, ` ${source}`));
    return element("tr", "", {}, name, ...cells.map((cell) => element("td", cell)));
  });
  table.tBodies[0].replaceChildren(...lines);
}

const NAMES = ["setting", "target", "score", "truth", "orientation"];
const state = () => Object.fromEntries(NAMES.map((name) => [name, form[name].value]));

/** Offer what the setting has, and choose what is wanted where it is there. */
function offer(wanted) {
  const { settings, scores: titles } = explorerData;
  const lists = { setting: Object.entries(settings).map(([name, { title }]) => [name, title]) };
  for (const name of NAMES) {
    if (lists[name]) form[name].replaceChildren(...lists[name].map(([value, text]) => element("option", text, { value })));
    if ([...form[name].options].some((option) => option.value === wanted[name])) form[name].value = wanted[name];
    const { targets, scores, truths } = setting();
    Object.assign(lists, { target: Object.keys(targets).map((target) => [target, target]), truth: Object.entries(truths) });
    lists.score = scores.map((score) => [score, titles[score]]);
  }
}

/** Show the page with something else chosen; `focus` is where the keyboard stays. */
function choose(changes, focus = null) {
  offer({ ...state(), ...changes });
  const now = chosen();
  for (const button of buttons) button.hidden = !setting().large.length;
  words.replaceChildren(...sentences(now).map((sentence) => element("p", sentence)));
  for (const draw of [drawScatter, drawSlopes, drawHeat, drawTable]) draw(now);
  history.replaceState(null, "", `#${new URLSearchParams({ ...state(), without: [...out].join() })}`);
  if (focus) page.querySelector(focus).focus();
}

function read() {
  const wanted = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  out = new Set((wanted.without ?? "").split(",").filter(Boolean));
  choose(wanted);
}

page.hidden = false;
read();
addEventListener("hashchange", read);
page.querySelector("form").addEventListener("change", () => choose({}));
table.addEventListener("change", ({ target }) => {
  target.checked ? out.delete(target.name) : out.add(target.name);
  choose({}, `input[name="${target.name}"]`);
});
for (const button of buttons)
  button.addEventListener("click", () => {
    out = new Set({ all: [], imagenet: ["imagenet"], large: setting().large }[button.dataset.without]);
    choose({});
  });
const cellOf = ({ target, score }) => `button[data-target="${target}"][data-score="${score}"]`;
heat.addEventListener("click", ({ target: { dataset } }) => dataset.score && choose(dataset, cellOf(dataset)));
heat.addEventListener("keydown", (event) => {
  const [down, right] = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key] ?? [];
  if (down === undefined) return;
  event.preventDefault();
  const next = ({ options, selectedIndex, length }, step) => options[(selectedIndex + step + length) % length].value;
  const to = { target: next(form.target, down), score: next(form.score, right) };
  choose(to, cellOf(to));
});
new ResizeObserver(() => page.clientWidth && [drawScatter, drawSlopes].forEach((draw) => draw(chosen()))).observe(page);
