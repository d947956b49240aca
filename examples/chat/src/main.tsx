import { ConvexProvider, ConvexReactClient } from "convex/react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { Crash } from "./Crash";
import { ToastProvider } from "./toasts";

// The server that serves this page also answers its queries.
const client = new ConvexReactClient(location.origin);

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <Crash>
      <ConvexProvider client={client}>
        <ToastProvider>
          <App />
        </ToastProvider>
      </ConvexProvider>
    </Crash>
  </StrictMode>,
);
