// ---- the photographs of this visit: a strip to go back to, and what a reload finds again

const STRIP = 8;  // photographs, at most
const STORE = "resegnet-visit";  // in the browser, until the tab is closed; the photographs themselves stay on the server
// Each of the strip: file on the server, name and thumbnail. `beside`: file of the one in the second pane, null if there is none.
let visit = { token: "", strip: [], open: false, model: "", beside: null };

function loadVisit() {
  try {
    const stored = JSON.parse(sessionStorage.getItem(STORE));
    if (stored?.token && Array.isArray(stored.strip)) visit = stored;
    nameModel(visit.model);
  } catch { /* the browser keeps nothing, or something else */ }
  const returns = visit.token !== "";
  if (!returns) visit.token = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return returns;
}

function saveVisit() {
  visit.model = chosenModel();
  try {
    sessionStorage.setItem(STORE, JSON.stringify(visit));
  } catch { /* without the store a reload begins anew */ }
}

function forgetVisit() {
  visit.strip = [];
  saveVisit();
  drawStrip();
}

// Put the open photograph first in the strip.
function rememberPhotograph() {
  const canvas = Object.assign(document.createElement("canvas"), { width: 144, height: 144 }), side = Math.min(shown.width, shown.height);
  canvas.getContext("2d").drawImage(photo, (shown.width - side) / 2, (shown.height - side) / 2, side, side, 0, 0, 144, 144);
  const entry = { photo: shown.photo, name: shown.name, src: canvas.toDataURL("image/jpeg", 0.7) };
  visit.strip = [entry, ...visit.strip.filter((other) => other.photo !== shown.photo)].slice(0, STRIP);
  visit.open = true;
  saveVisit();
  drawStrip();
}

function drawStrip() {
  find(".strip").hidden = visit.strip.length < (shown ? 2 : 1);
  find(".strip div").replaceChildren(...visit.strip.map(({ photo, name, src }, number) => {
    const item = document.createElement("div"), button = Object.assign(document.createElement("button"), { type: "button", title: name });
    button.dataset.again = number;
    if (photo === shown?.photo) button.setAttribute("aria-current", "true");
    button.append(Object.assign(document.createElement("img"), { src, alt: `Again: ${name}`, width: 72, height: 72 }));
    item.append(button);
    if (shown && photo !== shown.photo) {
      const pair = Object.assign(tag("button", "Side by side"), { type: "button", ariaLabel: `Side by side: ${name}` });
      pair.dataset.pair = number;
      item.append(pair);
    }
    return item;
  }));
  updateBesideButtons();
}

function showAgain(number) {
  newRequest("Finding the vessels");
  trigger("again", { photo: visit.strip[number].photo });
}

function restoreVisit() {
  if (!loadVisit() || !visit.strip.length) { saveVisit(); return; }
  drawStrip();
  newRequest(visit.open ? "Opening the photograph again" : "");
  trigger("restore");
}
