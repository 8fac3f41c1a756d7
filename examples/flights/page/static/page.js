// What htmx does not do by itself: rows that wait for their command, the dialog, a lost connection.
(() => {
  "use strict";

  // Flights with a command under way, and the position in the log at which it took effect.
  const pending = new Map();

  function mark() {
    for (const [flight, position] of pending) {
      const row = document.getElementById(`f-${flight}`);
      if (!row) continue;
      const shown = Number(row.dataset.asOf) >= position;
      row.classList.toggle("pending", !shown);
      row.toggleAttribute("aria-busy", !shown);
      if (shown) {
        pending.delete(flight);
      } else {
        row.setAttribute("aria-busy", "true");
        row.querySelector(".status").textContent = "Pending";
      }
    }
  }

  const dialog = document.getElementById("dialog");

  document.body.addEventListener("htmx:afterSwap", (event) => {
    const accepted = event.target.querySelector("[data-accepted]");
    if (accepted) {
      pending.set(accepted.dataset.accepted, Number(accepted.dataset.position));
      accepted.remove();
      dialog?.close();
    }
    mark();
  });
  // Not before its forms are htmx's: who is fast would send them as a page of their own.
  document.body.addEventListener("htmx:afterSettle", (event) => {
    if (event.target.id === "change") dialog.showModal();
  });

  const lost = document.getElementById("lost");
  if (lost) {
    document.body.addEventListener("htmx:sseError", () => document.body.classList.add("offline"));
    document.body.addEventListener("htmx:sseOpen", () => document.body.classList.remove("offline"));
  }

  const position = document.getElementById("position");
  if (position) {
    const chosen = document.getElementById("chosen");
    position.addEventListener("input", () => {
      chosen.textContent = Number(position.value).toLocaleString("en");
    });
    position.addEventListener("change", () => position.form.requestSubmit());
  }
})();
