import { useMutation, useQuery } from "convex/react";
import { useEffect, useMemo, useState } from "react";
import { api, type User } from "./api";
import { Conversation } from "./Conversation";
import { Members } from "./Members";
import { session } from "./session";
import { Sidebar } from "./Sidebar";
import { useToast } from "./toasts";
import { usePresence } from "./usePresence";

export type People = Map<string, User>;

/** The channel named in the address, so that reloading and going back work. */
function useChannelInAddress(): string {
  const [name, setName] = useState(() => decodeURIComponent(location.hash.slice(1)));
  useEffect(() => {
    const follow = () => setName(decodeURIComponent(location.hash.slice(1)));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return name;
}

export function Chat({ me }: { me: User }) {
  usePresence();
  const channels = useQuery(api.channels.overview, { session });
  const everyone = useQuery(api.users.everyone);
  const here = useQuery(api.presence.here);
  const people: People = useMemo(() => new Map(everyone?.map((user) => [user._id, user])), [everyone]);
  const present = useMemo(() => new Set<string>(here), [here]);

  const wanted = useChannelInAddress();
  const channel = channels?.find((each) => each.name === wanted) ?? channels?.find((each) => each.joined) ?? channels?.[0];
  const unread = channels?.reduce((sum, each) => sum + each.unread, 0) ?? 0;

  // On a small screen the channels and the members lie over the conversation.
  const [drawer, setDrawer] = useState<"channels" | "members" | null>(null);
  useEffect(() => setDrawer(null), [channel?.id]);
  useEffect(() => {
    const close = (event: KeyboardEvent) => event.key === "Escape" && setDrawer(null);
    addEventListener("keydown", close);
    return () => removeEventListener("keydown", close);
  }, []);

  useEffect(() => {
    document.title = (unread ? `(${unread > 99 ? "99+" : unread}) ` : "") + (channel ? `#${channel.name} · ` : "") + "Reactor chat";
  }, [channel, unread]);

  const join = useMutation(api.channels.join);
  const showError = useToast();

  return (
    <div className="chat" data-drawer={drawer ?? undefined}>
      <Sidebar me={me} channels={channels} current={channel} onClose={() => setDrawer(null)} />
      {channel ? (
        <Conversation
          key={channel.id}
          me={me}
          channel={channel}
          people={people}
          onJoin={() => join({ session, channel: channel.id }).catch(showError)}
          onShowChannels={() => setDrawer("channels")}
          onShowMembers={() => setDrawer(drawer === "members" ? null : "members")}
        />
      ) : (
        <main className="conversation" aria-busy="true" />
      )}
      {channel && <Members channel={channel.id} present={present} onClose={() => setDrawer(null)} />}
      {drawer && <div className="scrim" onClick={() => setDrawer(null)} />}
    </div>
  );
}
