import { useMutation } from "convex/react";
import { useEffect } from "react";
import { api } from "./api";
import { session } from "./session";

const HEARTBEAT_MS = 10_000;

/** Tells the others that this page is open, and when it is closed. */
export function usePresence(): void {
  const heartbeat = useMutation(api.presence.heartbeat);

  useEffect(() => {
    // One that fails is made up for by the next.
    const beat = () => void heartbeat({ session }).catch(() => {});
    const timer = setInterval(beat, HEARTBEAT_MS);
    beat();
    addEventListener("pageshow", beat);
    addEventListener("pagehide", sayGoodbye);
    return () => {
      clearInterval(timer);
      removeEventListener("pageshow", beat);
      removeEventListener("pagehide", sayGoodbye);
    };
  }, [heartbeat]);
}

/** A closing page has no time left for its socket; a beacon to the HTTP API still gets through. */
function sayGoodbye(): void {
  const call = { path: "presence:leave", args: { session }, format: "json" };
  navigator.sendBeacon("/api/mutation", new Blob([JSON.stringify(call)], { type: "application/json" }));
}
