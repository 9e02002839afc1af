// A Vite plugin that names in index.html what every page needs right after its first paint, so that
// the browser fetches it while it paints:
// the dashboard's script and styles, and the two fonts of the first view.

import type { HtmlTagDescriptor, Plugin, Rollup } from "vite";

const FONTS = /(?:jetbrains-mono-latin-400|share-tech-mono-latin-400)[^/]*\.woff2$/;

export function preload(): Plugin {
  return {
    name: "preload",
    apply: "build",
    transformIndexHtml: {
      order: "post",
      handler: (_html, context) => tags(context.bundle ?? {}),
    },
  };
}

function tags(bundle: Rollup.OutputBundle): HtmlTagDescriptor[] {
  const app = Object.values(bundle).find(
    (file): file is Rollup.OutputChunk => file.type === "chunk" && file.isDynamicEntry && file.name === "app",
  );
  if (!app) {
    throw new Error("the build has no chunk named app: src/main.ts imports it");
  }
  const scripts = [app, ...app.imports.map((name) => bundle[name])].filter(
    (file): file is Rollup.OutputChunk => file?.type === "chunk" && !file.isEntry,
  );
  const styles = scripts.flatMap((chunk) => [...(chunk.viteMetadata?.importedCss ?? [])]);
  const fonts = Object.keys(bundle).filter((name) => FONTS.test(name));
  return [
    ...scripts.map((chunk) => link({ rel: "modulepreload", crossorigin: "", href: chunk.fileName })),
    ...styles.map((href) => link({ rel: "preload", as: "style", crossorigin: "", href })),
    ...fonts.map((href) => link({ rel: "preload", as: "font", type: "font/woff2", crossorigin: "", href })),
  ];
}

function link(attributes: Record<string, string>): HtmlTagDescriptor {
  return { tag: "link", attrs: { ...attributes, href: `./${attributes.href}` }, injectTo: "head" };
}
