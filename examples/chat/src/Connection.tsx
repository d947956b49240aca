import { useConvexConnectionState } from "convex/react";
import { useEffect, useState } from "react";

const NOTICE_AFTER_MS = 700; // a blip shorter than this is not worth a word

/** Whether what is on the screen is live, and how much waits to be sent while it is not. */
export function Connection() {
  const { isWebSocketConnected, inflightMutations } = useConvexConnectionState();
  const [lost, setLost] = useState(false);
  useEffect(() => {
    if (isWebSocketConnected) return setLost(false);
    const timer = setTimeout(() => setLost(true), NOTICE_AFTER_MS);
    return () => clearTimeout(timer);
  }, [isWebSocketConnected]);

  const waiting = inflightMutations ? ` · ${inflightMutations} unsent` : "…";
  return (
    <p className="connection" data-lost={lost || undefined} role="status">
      <span className="dot on" aria-hidden="true" />
      {lost ? `Reconnecting${waiting}` : "Live"}
    </p>
  );
}
