// Hints on charts, and pages that follow what runs. All pages work without it.
"use strict";

const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);

function showTip(event) {
  const column = event.target.closest(".hit, .lanes a");
  tip.hidden = !column;
  if (!column) return;
  const title = column.querySelector("title");
  if (title) {
    column.dataset.tip = title.textContent;
    column.setAttribute("aria-label", title.textContent);
    title.remove(); // else the browser shows it, too
  }
  tip.textContent = column.dataset.tip;
  const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, event.clientY - tip.offsetHeight - 12)}px`;
}
for (const chart of document.querySelectorAll(".chart, .lanes")) {
  chart.addEventListener("pointermove", showTip);
  chart.addEventListener("pointerleave", () => { tip.hidden = true; });
}

async function refresh(part) {
  const response = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!response.ok || response.redirected) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const fresh = page.querySelector("[data-refresh]");
  if (fresh && !part.contains(document.activeElement)) part.replaceChildren(...fresh.childNodes);
}
for (const part of document.querySelectorAll("[data-refresh]")) {
  setInterval(() => {
    if (!document.hidden) refresh(part).catch(() => {});
  }, 1000 * part.dataset.refresh);
}
