import { useQuery } from "convex/react";
import { api, type Id, type User } from "./api";
import { Avatar } from "./Avatar";
import { CloseIcon } from "./icons";

type Props = { channel: Id<"channels">; present: Set<string>; onClose: () => void };

export function Members({ channel, present, onClose }: Props) {
  const members = useQuery(api.channels.members, { channel }) ?? [];
  const here = members.filter((user) => present.has(user._id));
  const away = members.filter((user) => !present.has(user._id));
  return (
    <aside className="members" aria-label="Members">
      <button className="icon-button drawer-only" aria-label="Close the member list" onClick={onClose}>
        <CloseIcon />
      </button>
      <MemberList title={`Here — ${here.length}`} users={here} present />
      {away.length > 0 && <MemberList title={`Away — ${away.length}`} users={away} present={false} />}
    </aside>
  );
}

function MemberList({ title, users, present }: { title: string; users: User[]; present: boolean }) {
  return (
    <section>
      <h2>{title}</h2>
      <ul>
        {users.map((user) => (
          <li key={user._id} data-away={!present || undefined}>
            <Avatar user={user} present={present} />
            <span>{user.name}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}
