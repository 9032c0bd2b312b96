"use strict";
// A photo that is dropped, pasted, chosen or taken goes to /v1/predict; nothing of it is kept, here or there.

const at = (id) => document.getElementById(id);
let token = "";
let models = [];
let photo = null; // the last Blob
let asked = 0; // so that a late answer does not replace that of a later photo

async function call(path, options = {}) {
  const headers = { ...(options.headers || {}), ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  const error = new Error(told.error ? told.error.message : `the server answered ${response.status}`);
  error.status = response.status;
  throw error;
}

function say(text, wrong = false) {
  at("message").textContent = text;
  at("message").classList.toggle("wrong", wrong);
}

function percent(share) {
  const words = share >= 0.9995 && share < 1 ? "> 99.9" : share < 0.0005 && share > 0 ? "< 0.1" : (100 * share).toFixed(1);
  return `${words} %`;
}

function chosen() {
  return models.find((model) => model.name === at("model").value) || models[0];
}

async function begin() {
  try {
    const told = await (await call("v1/models")).json();
    models = told.models;
    at("ask").hidden = true;
    at("model").replaceChildren(...models.map((model) => new Option(model.name)));
    at("models").hidden = models.length < 2;
    about();
  } catch (error) {
    at("ask").hidden = error.status !== 401;
    if (error.status !== 401) say(error.message, true);
  }
}

function about() {
  const model = chosen();
  const words = [`${model.network || model.name}, ${model.classes.length} classes, on ${model.engine}`];
  words.push(calibration(model.calibration));
  if (model.unfamiliar !== "there") words.push("whether an image is of none of the classes is not known here");
  at("about").textContent = words.join("; ");
}

function calibration(found) {
  if (!found) return "nobody noted whether its probabilities are calibrated";
  if (found.temperature === 1) return `probabilities stay as they are: ${found.reason}`;
  return `probabilities are calibrated on ${found.rows} images that it has not learned from`;
}

function show(blob) {
  const image = at("photo");
  if (image.src) URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(blob);
  image.hidden = false;
  image.alt = "your photo";
  at("hint").hidden = true;
}

async function classify(blob) {
  photo = blob;
  const number = ++asked;
  show(blob);
  at("classes").replaceChildren();
  at("notes").textContent = "";
  at("heat").hidden = at("explain").hidden = true;
  say("…");
  try {
    const name = encodeURIComponent(at("model").value);
    const headers = { "Content-Type": blob.type.startsWith("image/") ? blob.type : "application/octet-stream" };
    const told = await (await call(`v1/predict?model=${name}`, { method: "POST", body: blob, headers })).json();
    if (number === asked) tell(told.predictions[0]);
  } catch (error) {
    if (number !== asked) return;
    say(error.message, true);
    at("ask").hidden = error.status !== 401;
  }
}

function tell(found) {
  const given = found.classes || [found.class];
  const labels = given.length ? given.join(", ") : "none of the labels";
  say(found.abstain ? "No answer: too uncertain." : labels);
  at("classes").replaceChildren(...found.top.map((each) => {
    const row = document.createElement("li");
    row.classList.toggle("given", !found.abstain && given.includes(each.class));
    const line = document.createElement("div");
    line.className = "line";
    for (const [kind, text] of [["name", each.class], ["share", percent(each.probability)]]) {
      const part = document.createElement("span");
      part.className = kind;
      part.textContent = text;
      line.append(part);
    }
    const bar = document.createElement("meter");
    bar.value = each.probability;
    bar.setAttribute("aria-label", each.class);
    row.append(line, bar);
    return row;
  }));
  const notes = [];
  if (found.abstain) notes.push("Answers this uncertain are less often right than was asked for.");
  if (found.set) notes.push(`It is probably one of: ${found.set.join(", ")}.`);
  if (found.unfamiliar >= 0.99) notes.push("It looks like none of the classes.");
  at("notes").textContent = notes.join(" ");
  at("explain").hidden = !chosen().heat_maps;
}

async function explain() {
  const name = encodeURIComponent(at("model").value);
  const number = asked;
  try {
    const headers = { "Content-Type": photo.type.startsWith("image/") ? photo.type : "application/octet-stream" };
    const blob = await (await call(`v1/explain?model=${name}`, { method: "POST", body: photo, headers })).blob();
    if (number !== asked) return;
    const image = at("heat").querySelector("img");
    if (image.src) URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(blob);
    image.alt = "heat map of the photo";
    at("heat").querySelector("figcaption").textContent = "The part that the model is given; the lighter, the more it speaks for the class.";
    at("heat").hidden = false;
  } catch (error) {
    say(error.message, true);
  }
}

let stream = null;

async function camera() {
  if (stream) return stop();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    return say(`The camera cannot be used: ${error.message}`, true);
  }
  at("video").srcObject = stream;
  at("video").hidden = at("shot").hidden = false;
  at("photo").hidden = at("hint").hidden = true;
  at("camera").textContent = "Stop the camera";
}

function stop() {
  stream.getTracks().forEach((track) => track.stop());
  stream = null;
  at("video").hidden = at("shot").hidden = true;
  at("camera").textContent = "Use the camera";
  at("photo").hidden = !photo;
  at("hint").hidden = Boolean(photo);
}

function shot() {
  const video = at("video");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => { stop(); classify(blob); }, "image/jpeg", 0.95);
}

const drop = at("drop");
const first = (list) => [...list].find((file) => file.type.startsWith("image/")) || list[0];
drop.addEventListener("click", () => stream || at("file").click());
drop.addEventListener("keydown", (event) => ["Enter", " "].includes(event.key) && at("file").click());
at("file").addEventListener("change", (event) => event.target.files.length && classify(event.target.files[0]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) classify(first(event.dataTransfer.files));
  });
}
document.addEventListener("paste", (event) => event.clipboardData.files.length && classify(first(event.clipboardData.files)));
at("camera").addEventListener("click", camera);
at("shot").addEventListener("click", shot);
at("explain").addEventListener("click", explain);
at("model").addEventListener("change", () => { about(); if (photo) classify(photo); });
at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value;
  begin().then(() => photo && classify(photo));
});
if (!navigator.mediaDevices) at("camera").hidden = true; // as on a page that is neither local nor by https
begin();
