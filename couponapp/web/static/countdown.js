// Counts down to the opening by the server's clock. The button works without it.
"use strict";
(() => {
  const line = document.querySelector(".countdown");
  const shown = line.querySelector("strong");
  const opensAt = performance.now() + Number(line.dataset.opensInMs);
  const two = (number) => String(number).padStart(2, "0");
  const tick = () => {
    const left = Math.max(0, Math.ceil((opensAt - performance.now()) / 1000));
    const days = Math.floor(left / 86400);
    shown.textContent =
      (days ? `${days}${line.dataset.days} ` : "") +
      `${two(Math.floor(left / 3600) % 24)}:${two(Math.floor(left / 60) % 60)}:${two(left % 60)}`;
    line.hidden = left === 0;
    document.querySelector(".opened").hidden = left > 0;
    if (left > 0) return;
    clearInterval(timer);
    const badge = document.querySelector(".badge");
    badge.textContent = badge.dataset.open;
    badge.classList.replace("badge-scheduled", "badge-open");
  };
  const timer = setInterval(tick, 250);
  tick();
})();
