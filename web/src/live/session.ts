// The key of this page's session, which its cookie alone is not enough without. Only pages of this
// origin can read it: cookies are
// sent to every port of a host, and this is not. All tabs of a browser share it, as they share the
// cookie.

/** Where it is kept. Controllers below different paths of one origin have keys of their own. */
const name = (): string => `pistat.session ${new URL(".", document.baseURI).pathname}`;

/** The header that carries it. */
export const SESSION_KEY_HEADER = "pistat-session-key";

/** What a browser that refuses to remember anything still knows until the page is left. */
let held: string | null = null;

export const session = {
  /** The key, or null without a sign-in in this browser. */
  key(): string | null {
    try {
      return localStorage.getItem(name()) ?? held;
    } catch {
      return held;
    }
  },

  /** Keeps the key of a session that has just begun; the other tabs receive an event. */
  begin(key: string): void {
    held = key;
    try {
      localStorage.setItem(name(), key);
    } catch {
      // The session then ends with this page.
    }
  },

  /** Forgets the key; the other tabs receive an event. */
  end(): void {
    held = null;
    try {
      localStorage.removeItem(name());
    } catch {
      // There is nothing to forget.
    }
  },

  /** Calls when another tab has signed in (true) or out (false). */
  onChange(changed: (signedIn: boolean) => void): void {
    addEventListener("storage", (event) => {
      if (event.key === name() || event.key === null) {
        held = event.key === null ? null : event.newValue;
        changed(held !== null);
      }
    });
  },
};
