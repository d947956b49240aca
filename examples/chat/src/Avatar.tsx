import type { CSSProperties } from "react";
import type { User } from "./api";

/** A hue that stays the same for a user: their id hashed to an angle, in steps that set neighbours apart. */
function hueOf(id: string): number {
  let hash = 0;
  for (const char of id) hash = (hash * 31 + char.charCodeAt(0)) >>> 0;
  return (hash * 137.508) % 360;
}

function initials(name: string): string {
  const words = name.split(/\s+/).filter(Boolean);
  return words.slice(0, 2).map((word) => [...word][0]).join("").toUpperCase();
}

export function Avatar({ user, present }: { user?: User; present?: boolean }) {
  const style = { "--hue": user ? hueOf(user._id) : 0 } as CSSProperties;
  return (
    <span className="avatar" style={style} aria-hidden="true">
      {user ? initials(user.name) : "?"}
      {present !== undefined && <span className={present ? "dot on" : "dot"} />}
    </span>
  );
}
