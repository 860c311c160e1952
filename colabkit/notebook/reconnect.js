// Watches Colab's page while a training of one session runs, and reconnects it when the page
// itself shows that the connection is lost. Nothing else is ever clicked.
(function (config) {
  "use strict";
  if (window.colabkitWatch) window.colabkitWatch.stop("begun anew");
  const endsAt = Date.now() + config.maxMs;
  // A word from the kernel allows the next clicks, and so does no page that is merely open.
  let allowed = 0, triedAt = 0, clicks = 0, why = "", timer = 0;

  function visible(node) {
    return node.isConnected && node.getClientRects().length > 0;
  }
  function says(node, word) {
    return (node.innerText || node.textContent || "").trim().toLowerCase() === word;
  }
  function inside(root) {
    return root ? [...root.querySelectorAll("*")] : [];
  }
  // "Reconnect" in the button of the toolbar, or in a dialog that says the same.
  function lost() {
    const toolbar = document.querySelector("colab-connect-button");
    const button = inside(toolbar && toolbar.shadowRoot).find(
      node => node.id === "connect" && visible(node) && says(node, "reconnect"));
    if (button) return button;
    for (const dialog of document.querySelectorAll("mwc-dialog, md-dialog, paper-dialog")) {
      if (!visible(dialog) && !dialog.hasAttribute("open")) continue;
      const found = [...dialog.querySelectorAll("[dialogAction], [slot], button, paper-button")]
        .find(node => visible(node) && says(node, "reconnect"));
      if (found) return found;
    }
    return null;
  }
  function look() {
    if (Date.now() >= endsAt) return stop("its time is over");
    const button = lost();
    if (!button) {
      // Connected after a click of ours: whether the training lives, only the kernel can say.
      if (triedAt) allowed = triedAt = 0;
      return;
    }
    if (allowed < 1 || Date.now() - triedAt < config.againMs) return;
    allowed -= 1;
    triedAt = Date.now();
    clicks += 1;
    button.click();
  }
  function hear(event) {
    const said = event.data;
    if (!said || said.colabkit !== config.session) return;
    if (said.kind === "hello" && event.source) {
      event.source.postMessage({colabkit: config.session, kind: "watching", endsAt}, "*");
    }
    const isFresh = Math.abs(Date.now() - said.sentAt) < config.freshMs;
    if (said.kind === "training" && isFresh) allowed = config.tries;
    if (said.kind === "ended") allowed = triedAt = 0;
  }
  function stop(reason) {
    why = reason;
    clearInterval(timer);
    window.removeEventListener("message", hear);
  }
  window.addEventListener("message", hear);
  timer = setInterval(look, config.lookMs);
  window.colabkitWatch = {
    stop,
    state: () => ({allowed, clicks, why, endsAt}),
  };
})
