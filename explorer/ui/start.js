// Loads the page again where a part of it did not come: without one of its modules
// nothing of the page runs, and browsers do not ask for a module twice.

const again = 2_000; // milliseconds

window.addEventListener('error', (e) => {
  if (e.target instanceof HTMLScriptElement || e.target instanceof HTMLLinkElement) {
    setTimeout(() => location.reload(), again);
  }
}, { capture: true });
