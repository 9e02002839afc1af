// Shows the remembered theme before the first paint. Apart from the rest because it has to be: a page that was dark for a moment is a flash on paper.
try {
  const remembered = JSON.parse(localStorage.getItem("pistat") || "{}");
  if (/^(phosphor|amber|paper)$/.test(remembered.theme)) document.documentElement.dataset.theme = remembered.theme;
  if (remembered.scanLines === false) document.documentElement.dataset.scan = "off";
} catch {
  // A browser that remembers nothing has the default.
}
