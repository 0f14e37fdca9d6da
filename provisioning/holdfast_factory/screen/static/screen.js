// Fetches the live part again whenever the ledger has grown, and keeps the keyboard where it was.
"use strict";

const live = document.getElementById("live");
const search = document.getElementById("search");

async function refresh() {
  const answer = await fetch("/live", { credentials: "same-origin" });
  if (answer.redirected || !answer.ok) {
    location.reload();
    return;
  }
  const held = document.activeElement && live.contains(document.activeElement)
    ? document.activeElement.closest("form")?.getAttribute("action") : null;
  live.innerHTML = await answer.text();
  if (held !== null) {
    const station = held.replace(/\/(start|stop)$/, "/");
    for (const form of live.querySelectorAll("form")) {
      if (form.getAttribute("action").replace(/\/(start|stop)$/, "/") === station) form.querySelector("button").focus();
    }
  }
}

let running = false, again = false;
async function refreshOnce() {
  if (running) { again = true; return; }
  running = true;
  try { await refresh(); } catch { /* the server is away: the event stream says when it is back */ }
  running = false;
  if (again) { again = false; refreshOnce(); }
}

const events = new EventSource("/events");
events.addEventListener("grown", refreshOnce);
events.addEventListener("open", refreshOnce);

document.addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT" || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "/") { event.preventDefault(); search.focus(); search.select(); }
});
