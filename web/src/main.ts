// The first paint: two small style sheets and what stands in index.html. The dashboard itself
// follows in its own file.

import "./styles/tokens.css";
import "./styles/boot.css";

void import("./app/app");
