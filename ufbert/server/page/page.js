"use strict";

// A small page on the service's own routes. Texts are only ever set as text, never as HTML.

const $ = (selector, within = document) => within.querySelector(selector);
const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);
const figure = (value) => value.toFixed(3);

/** Make an element: make("td", {class: "heat"}, "text", child, ...). */
function make(name, attributes = {}, ...children) {
  const svg = ["svg", "path", "text", "circle", "title"].includes(name);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "style") for (const [property, setting] of Object.entries(value)) element.style.setProperty(property, setting);
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

/** Ask the service; what it refuses becomes an Error with its words. */
async function ask(path, body) {
  const headers = {"content-type": "application/json"};
  if ($("#key").value) headers.authorization = "Bearer " + $("#key").value;
  let response;
  try {
    response = await fetch(path, body ? {method: "POST", headers, body: JSON.stringify(body)} : {headers});
  } catch {
    throw new Error("The service does not answer. Is it still running?");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error?.message ?? answer.error ?? `The service answered ${response.status}.`);
  return answer;
}

const table = (...rows) => make("table", {}, make("tbody", {}, ...rows));

function bar(label, score, most = 1) {
  const width = `${Math.max(0, Math.min(1, score / most)) * 100}%`;
  return make("tr", {}, make("th", {scope: "row"}, label), make("td", {class: "figure"}, figure(score)),
    make("td", {class: "wide"}, make("span", {class: "bar", style: {width}})));
}

const PANELS = {
  async similarity({texts}) {
    const found = lines(texts);
    if (found.length < 2) throw new Error("Two texts at least are needed, one a line.");
    const rows = await ask("embed", {inputs: found});
    const cosine = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);
    const scores = rows.map((a) => rows.map((b) => cosine(a, b)));
    const nearest = scores.map((row, own) => row.reduce((best, value, at) => at !== own && (best < 0 || value > row[best]) ? at : best, -1));
    const head = make("tr", {}, make("td"), ...found.map((_, at) => make("th", {scope: "col"}, String(at + 1))), make("th", {scope: "col"}, "nearest"));
    return [table(head, ...found.map((text, at) => make("tr", {},
      make("th", {scope: "row"}, `${at + 1}  ${text}`),
      ...scores[at].map((score) => make("td", {class: "heat", style: {"--share": Math.max(0, score) * 0.6}}, score.toFixed(2))),
      make("td", {}, String(nearest[at] + 1)))))];
  },

  async rerank({query, texts}) {
    const found = await ask("rerank", {query, texts: lines(texts), return_text: true});
    return [table(...found.map((row) => bar(row.text, row.score)))];
  },

  async classify({texts}, models) {
    const found = lines(texts);
    const model = models.find((name) => served[name] === "classifier") ?? models[0];
    const rows = await ask("predict", {inputs: found.map((text) => [text]), model});
    return found.flatMap((text, at) => [make("h3", {}, text), table(...rows[at].map((row) => bar(row.label, row.score)))]);
  },

  async fill({text}, [model]) {
    const found = await ask("./", {inputs: text, model});
    const masks = Array.isArray(found[0]) ? found : [found];
    return masks.map((fills) => table(...fills.map((row) => bar(row.sequence, row.score))));
  },

  async entities({text}, [model]) {
    const found = await ask("./", {inputs: text, model});
    const pieces = found.map(({start, end, entity_group: group, score}) =>
      [start, end, make("mark", {title: figure(score)}, [...text].slice(start, end).join(""), make("small", {}, group))]);
    return [marked(text, pieces), found.length ? "" : make("p", {class: "hint"}, "No entity was found.")];
  },

  async answer({question, context}, [model]) {
    const answers = [await ask("./", {inputs: {question, context}, parameters: {top_k: 3}, model})].flat();
    const {start, end} = answers[0];
    const piece = [start, end, make("mark", {}, [...context].slice(start, end).join(""))];
    return [marked(context, [piece]), table(...answers.map((row) => bar(row.answer || "no answer", row.score)))];
  },

  async paths({text}, [model]) {
    return [picture(await ask("routes", {inputs: text, model}))];
  },
};

/** A text with pieces of it marked; places count characters, as Python counts them. */
function marked(text, pieces) {
  const characters = [...text], passage = make("p", {class: "passage"});
  let done = 0;
  for (const [start, end, element] of pieces) {
    passage.append(characters.slice(done, start).join(""), element);
    done = end;
  }
  passage.append(characters.slice(done).join(""));
  return passage;
}

/** Colour of a leaf: near leaves, which share most of their way, have near colours. */
const colour = (leaf, depth) => `hsl(${Math.round(300 * leaf / 2 ** depth)} 65% ${leaf % 2 ? 68 : 76}%)`;

/** Which leaf each token reaches in each layer, for one tree; a token that is chosen shows its way through the tree. */
function picture({model, depth, num_trees: trees, tokens, layers}) {
  const state = {tree: 0, layer: 0, token: 0};
  const grid = make("div"), drawing = make("div");
  const choice = (name, count, first) => make("label", {}, name, make("select", {
    onchange: (event) => { state[first] = Number(event.target.value); draw(); },
    "data-choice": first,
  }, ...Array.from({length: count}, (_, at) => make("option", {value: at}, `${at + 1} of ${count}`))));

  function choose(token, layer) {
    Object.assign(state, {token, layer});
    draw();
    $(`[data-at="${token}-${layer}"]`, grid).focus();
  }

  function draw() {
    const head = make("tr", {}, make("th", {}, "token"), ...layers.map((_, at) => make("th", {scope: "col"}, `layer ${at + 1}`)));
    grid.replaceChildren(make("table", {class: "paths"}, make("tbody", {}, head, ...tokens.map((token, row) => make("tr", {},
      make("th", {scope: "row"}, token),
      ...layers.map((layer, column) => {
        const leaf = layer[row][state.tree];
        return make("td", {}, make("button", {
          type: "button", "data-at": `${row}-${column}`, style: {background: colour(leaf, depth)},
          "aria-pressed": String(row === state.token && column === state.layer),
          "aria-label": `${token}, layer ${column + 1}: leaf ${leaf}`, onclick: () => choose(row, column),
        }, String(leaf)));
      }))))));
    drawing.replaceChildren(tree(layers[state.layer].map((leaves) => leaves[state.tree]), tokens, state.token, depth));
    const same = layers[state.layer].map((leaves, at) => [at, leaves.filter((leaf, tree) => leaf === layers[state.layer][state.token][tree]).length])
      .filter(([at]) => at !== state.token).sort((a, b) => b[1] - a[1]).slice(0, 5);
    drawing.append(make("p", {class: "hint"}, `Tokens that reach the same leaf as “${tokens[state.token]}” in most of the ${trees} trees of layer ${state.layer + 1}: `
      + same.map(([at, count]) => `${tokens[at]} (${count})`).join(", ")));
  }

  draw();
  const about = `${model}: ${layers.length} layers of ${trees} trees with ${2 ** depth} leaves each. A token visits ${depth + 1} of ${2 ** (depth + 1) - 1} neurons of a tree. `
    + "The figure is the leaf; neighbours have near colours. Choose a cell to see the way.";
  return make("div", {}, make("p", {class: "hint"}, about), make("div", {class: "choose"}, choice("Tree", trees, "tree")), grid, drawing);
}

/** A binary tree with the ways of all tokens, one of them strong. */
function tree(leaves, tokens, chosen, depth) {
  const width = 720, step = 34, shown = Math.min(depth, 9), top = 14;
  const x = (level, node) => (node + 0.5) * width / 2 ** level, y = (level) => top + level * step;
  const image = make("svg", {viewBox: `0 0 ${width} ${y(shown) + 34}`, role: "img"});
  image.append(make("title", {}, `The way of ${tokens[chosen]} to leaf ${leaves[chosen]}`));
  for (let level = 1; level <= Math.min(shown, 7); level++)
    for (let node = 0; node < 2 ** level; node++)
      image.append(make("path", {class: "twig", d: `M${x(level - 1, node >> 1)} ${y(level - 1)}L${x(level, node)} ${y(level)}`}));
  const order = leaves.map((_, at) => at).filter((at) => at !== chosen).concat(chosen);
  for (const at of order) {
    const points = Array.from({length: shown + 1}, (_, level) => `${x(level, leaves[at] >> (depth - level))} ${y(level)}`);
    const strong = at === chosen;
    image.append(make("path", {class: "way", d: "M" + points.join("L"), style: {
      stroke: strong ? "var(--blue)" : colour(leaves[at], depth), opacity: strong ? 1 : 0.55, "stroke-width": strong ? 4 : 2}}));
  }
  const end = x(shown, leaves[chosen] >> (depth - shown));
  image.append(make("circle", {cx: end, cy: y(shown), r: 5, style: {fill: "var(--blue)"}}));
  image.append(make("text", {x: Math.max(30, Math.min(width - 60, end)), y: y(shown) + 20, "text-anchor": "middle"}, `${tokens[chosen]} → ${leaves[chosen]}`));
  return image;
}

let served = {};

/** Show one panel; its tab alone is reached by the tab key, the others by arrows. */
function select(tab) {
  for (const other of $("#tabs").children) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", String(chosen));
    other.tabIndex = chosen ? 0 : -1;
    $("#" + other.dataset.panel).hidden = !chosen;
  }
  history.replaceState(null, "", "#" + tab.dataset.panel);
}

function moved(event) {
  const tabs = [...$("#tabs").children], at = tabs.indexOf(event.target);
  const next = {ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1}[event.key];
  if (next === undefined) return;
  const tab = tabs[(next + tabs.length) % tabs.length];
  select(tab);
  tab.focus();
  event.preventDefault();
}

/** Run a panel's form and show its answer, or what went wrong. */
async function submitted(event, panel, models) {
  event.preventDefault();
  const out = $(".out", panel), button = $("form > button", panel);
  out.setAttribute("aria-live", "polite");
  button.disabled = true;
  try {
    out.replaceChildren(...await PANELS[panel.id](Object.fromEntries(new FormData($("form", panel))), models));
  } catch (error) {
    out.replaceChildren(make("p", {class: "error", role: "alert"}, error.message));
  } finally {
    button.disabled = false;
  }
}

async function begin() {
  $("#tabs").replaceChildren();
  let info;
  try {
    info = await ask("info");
  } catch (error) {
    $("#about").textContent = error.message;
    return;
  }
  served = info.models;
  $("#about").textContent = Object.entries(served).map(([name, kind]) => `${name} (${kind})`).join(", ");
  for (const panel of document.querySelectorAll("main > section")) {
    const kinds = panel.dataset.kind.split(" ");
    const models = panel.id === "paths" ? info.models_with_trees : Object.keys(served).filter((name) => kinds.includes(served[name]));
    panel.hidden = true;
    if (!models.length) continue;
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-label", panel.dataset.title);
    $("#tabs").append(make("button", {type: "button", role: "tab", "aria-controls": panel.id, "data-panel": panel.id,
      onclick: (event) => select(event.target), onkeydown: moved}, panel.dataset.title));
    $("form", panel).onsubmit = (event) => submitted(event, panel, models);
  }
  const wanted = [...$("#tabs").children].find((tab) => "#" + tab.dataset.panel === location.hash);
  const first = wanted ?? $("#tabs").firstChild;
  if (first) select(first);
}

$("#key").addEventListener("change", begin);
$("#ask-key").addEventListener("submit", (event) => event.preventDefault());
begin();
