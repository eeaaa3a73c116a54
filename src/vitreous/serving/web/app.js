"use strict";

// Names of classes come from whoever trained the model and are only ever written with textContent.

const $ = (id) => document.getElementById(id);

let current = null; // {file, shown}: the image on the page; replaced, never changed, so late replies are recognised
let about = null; // what the server says of its model, asked for with the first image
let token = sessionStorage.getItem("token");

class Failure extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// --- talking to the server ---

async function call(path, options = {}) {
  for (;;) {
    const headers = { ...options.headers };
    if (token) headers.Authorization = `Bearer ${token}`;
    let reply;
    try {
      reply = await fetch(path, { ...options, headers });
    } catch {
      throw new Failure(0, "The server cannot be reached.");
    }
    if (reply.ok) return reply;
    if (reply.status === 401 && (await askForToken(Boolean(token)))) continue;
    throw new Failure(reply.status, await reasonOf(reply));
  }
}

async function reasonOf(reply) {
  try {
    const { error } = await reply.json();
    return typeof error === "string" ? error : error.message;
  } catch {
    return `The server answered with status ${reply.status}.`;
  }
}

function askForToken(wrong) {
  const dialog = $("ask");
  $("ask-text").textContent = wrong
    ? "That token was not accepted. Try again."
    : "Whoever started it has it. It is kept until this tab is closed.";
  $("token").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        if (dialog.returnValue !== "given") return resolve(false);
        token = $("token").value.trim();
        sessionStorage.setItem("token", token);
        resolve(true);
      },
      { once: true },
    );
  });
}

function send(path, file) {
  return call(path, { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
}

// --- an image and its answer ---

async function choose(file) {
  const mine = { file, shown: false };
  current = mine;
  clear();
  $("drop").hidden = true;
  $("figure").hidden = false;
  $("name").textContent = file.name || "Pasted image";
  showPicture(mine, URL.createObjectURL(file));
  $("busy").hidden = false;
  const start = performance.now();
  try {
    const answer = await (await send("/predict", file)).json();
    if (current !== mine) return;
    const elapsed = performance.now() - start;
    about ??= (await (await call(`/v2/models/${encodeURIComponent(answer.model)}`)).json()).parameters;
    if (current !== mine) return;
    showAnswer(answer, elapsed);
    offerExplanation(answer);
  } catch (failure) {
    if (current === mine) complain(failure);
  } finally {
    if (current === mine) $("busy").hidden = true;
  }
}

function clear() {
  $("answer").hidden = false;
  for (const id of ["problem", "result", "why", "view", "heat", "unseen", "invitation", "busy"]) $(id).hidden = true;
}

function reset() {
  current = null;
  clear();
  $("figure").hidden = true;
  $("drop").hidden = false;
  $("invitation").hidden = false;
  $("file").value = "";
  $("file").focus();
}

function showPicture(mine, url) {
  const image = $("image");
  const picture = $("picture");
  image.onload = () => {
    URL.revokeObjectURL(url);
    if (current !== mine) return;
    mine.shown = true;
    // A small picture is enlarged; one of a few pixels by a whole factor, with its pixels left square.
    const longer = Math.max(image.naturalWidth, image.naturalHeight);
    const side = Math.min(480, window.innerHeight / 2);
    const factor = longer <= 128 ? Math.floor(side / longer) : side / longer;
    picture.classList.toggle("tiny", longer <= 128);
    image.style.width = factor > 1 ? `${Math.round(image.naturalWidth * factor)}px` : "";
    picture.hidden = false;
  };
  image.onerror = () => {
    URL.revokeObjectURL(url);
    if (current !== mine) return;
    picture.hidden = true;
    $("unseen").hidden = false;
  };
  image.src = url;
}

function showAnswer(answer, elapsed) {
  const { label, score, top, abstain, ood, labels, set } = answer.predictions[0];
  $("model").textContent = answer.model;
  $("model").title = `${answer.model}, weights ${answer.version}`;
  $("model").hidden = false;
  $("kind").textContent = labels ? "Labels" : "Most likely";
  $("label").textContent = labels ? labels.map((each) => each.label).join(", ") || "None" : label;
  $("verdict").textContent = labels ? verdictOfLabels(labels, abstain, ood) : verdict(score, abstain, ood);
  $("verdict").classList.toggle("doubt", abstain);
  $("bars").replaceChildren(...top.map(bar));
  $("among").hidden = !set || set.length < 2;
  $("set").textContent = set ? `${set.slice(0, -1).join(", ")} or ${set.at(-1)}` : "";
  $("strange").textContent = strangeness(ood);
  $("latency").textContent = `${Math.max(1, Math.round(elapsed))} ms, sending included`;
  $("strangeness").hidden = !about.strangeness;
  $("result").hidden = false;
}

function verdict(score, abstain, ood) {
  if (abstain && ood >= 1) {
    return "Do not rely on this answer: the image is stranger than every image the model was checked on.";
  }
  if (abstain) return "The model is not sure enough to decide. Have a person look at this image.";
  return `Of 100 answers given with this score, about ${Math.round(score * 100)} are right.`;
}

function verdictOfLabels(labels, abstain, ood) {
  if (abstain && ood >= 1) return verdict(0, abstain, ood);
  if (labels.length === 0) return "No label reaches its threshold.";
  return `${labels.length === 1 ? "It reaches its" : "They reach their"} threshold, fitted on validation images.`;
}

function strangeness(ood) {
  if (ood >= 1) return "Unlike anything seen in validation";
  const share = `stranger than ${Math.floor(ood * 100)} % of the validation images`;
  if (ood >= 0.99) return `Very unusual: ${share}`;
  if (ood >= 0.9) return `Unusual: ${share}`;
  return `Ordinary: ${share}`;
}

function bar({ label, score }) {
  const item = document.createElement("li");
  const part = (name, text = "") => {
    const element = document.createElement("span");
    element.className = name;
    element.textContent = text;
    return element;
  };
  const track = document.createElement("div");
  const fill = document.createElement("div");
  track.className = "track";
  fill.className = "fill";
  fill.style.width = `${score * 100}%`;
  track.append(fill);
  item.append(part("who", label), part("share", percent(score)), track);
  return item;
}

function percent(score) {
  const value = score * 100;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  if (value > 99.9 && value < 100) return "> 99.9 %";
  return `${value.toFixed(1)} %`;
}

function complain(failure) {
  $("problem").textContent = failure.message;
  $("problem").hidden = false;
  $("answer").hidden = $("result").hidden;
}

// --- why ---

function offerExplanation(answer) {
  const likely = answer.predictions[0].top.map(({ label }) => label);
  const rest = about.classes.filter((name) => !likely.includes(name));
  fill($("target"), [...likely, ...rest], (name) => name);
  const chosen = $("method").value || "auto";
  fill($("method"), about.explain_methods, (name) => (name === "auto" ? "best available" : name));
  $("method").value = chosen;
  $("why").hidden = false;
}

function fill(select, values, wording) {
  select.replaceChildren(
    ...values.map((value) => {
      const option = document.createElement("option");
      option.value = value;
      option.textContent = wording(value);
      return option;
    }),
  );
}

async function explain() {
  const mine = current;
  $("problem").hidden = true;
  $("show").disabled = true;
  $("show").textContent = "Working";
  const query = new URLSearchParams({ method: $("method").value, target: $("target").value });
  try {
    if (mine.shown) {
      const map = await (await send(`/explain?${query}&format=json`, mine.file)).json();
      if (current !== mine) return;
      paint(map);
      $("explained").textContent = `For ${map.target}, by ${map.method}.`;
    } else {
      const overlay = await (await send(`/explain?${query}&format=png`, mine.file)).blob();
      if (current !== mine) return;
      $("image").onload = () => ($("picture").hidden = false);
      $("image").src = URL.createObjectURL(overlay);
      $("unseen").hidden = true;
      $("explained").textContent = `For ${$("target").value}.`;
    }
    for (const element of document.querySelectorAll(".slider, .legend")) element.hidden = !mine.shown;
    $("view").hidden = false;
  } catch (failure) {
    if (current === mine) complain(failure);
  } finally {
    $("show").disabled = false;
    $("show").textContent = "Show heat map";
  }
}

// The colors of the server's own overlays; what has no influence stays clear, so that the picture remains visible.
const STOPS = [
  [0.0, 87, 16, 110],
  [0.25, 87, 16, 110],
  [0.5, 188, 55, 84],
  [0.75, 249, 142, 9],
  [1.0, 252, 255, 164],
];

function paint({ heatmap, height, width }) {
  const canvas = $("heat");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  heatmap.flat().forEach((value, index) => {
    pixels.data.set(color(value), 4 * index);
  });
  context.putImageData(pixels, 0, 0);
  canvas.hidden = false;
  fade();
}

function color(value) {
  let upper = STOPS.findIndex(([at]) => at >= value);
  if (upper < 1) upper = upper === 0 ? 1 : STOPS.length - 1;
  const [from, ...low] = STOPS[upper - 1];
  const [to, ...high] = STOPS[upper];
  const share = (value - from) / (to - from);
  return [...low.map((channel, index) => channel + share * (high[index] - channel)), 255 * Math.min(1, value * 1.25)];
}

function fade() {
  $("heat").style.opacity = $("opacity").value / 100;
}

// --- what the user does ---

$("file").addEventListener("change", () => $("file").files.length && choose($("file").files[0]));
$("another").addEventListener("click", reset);
$("opacity").addEventListener("input", fade);
$("explain").addEventListener("submit", (event) => {
  event.preventDefault();
  explain();
});
$("cancel").addEventListener("click", () => $("ask").close("cancelled"));
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault(); // a form that is really sent would be stopped by the page's own security policy
  $("ask").close("given");
});

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) document.body.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) choose(file);
});
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) choose(file);
});
