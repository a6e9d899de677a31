"use strict";
// Everything works without this script; it only saves a reader some steps.

// A button beside a text copies it, and says so where a screen reader hears it.
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copy).textContent;
    const said = document.getElementById(button.dataset.copy + "-said");
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = "Copied";
    } catch {
      said.textContent = "Select the text and copy it";
    }
  });
}

// What is still being counted is looked for again, so that nobody has to.
const waiting = document.querySelectorAll("[data-again]");
if (waiting.length) {
  const seconds = Number(sessionStorage.getItem("again") || "1");
  sessionStorage.setItem("again", String(Math.min(seconds * 2, 30)));
  setTimeout(() => location.reload(), seconds * 1000);
} else {
  sessionStorage.removeItem("again");
}
