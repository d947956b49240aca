import { useMutation, usePaginatedQuery, useQuery } from "convex/react";
import { useEffect, useState } from "react";
import { api, type ChannelSummary, type Message, type User } from "./api";
import type { People } from "./Chat";
import { Composer } from "./Composer";
import { Connection } from "./Connection";
import { History } from "./History";
import { MenuIcon, PeopleIcon } from "./icons";
import { session } from "./session";
import { isUnsent } from "./unsent";

const PAGE = 40;

type Props = {
  me: User;
  channel: ChannelSummary;
  people: People;
  onJoin: () => void;
  onShowChannels: () => void;
  onShowMembers: () => void;
};

export function Conversation({ me, channel, people, onJoin, onShowChannels, onShowMembers }: Props) {
  const { results, status, loadMore } = usePaginatedQuery(api.messages.page, { channel: channel.id }, { initialNumItems: PAGE });
  const [unreadWhenOpened] = useState(channel.unread);
  const [editing, setEditing] = useState<string | null>(null);
  useReadMark(channel, results);

  function editLast() {
    const own = results.find((message) => message.author === me._id);
    if (own) setEditing(own._id);
  }

  return (
    <main className="conversation">
      <header className="channel-header">
        <button className="icon-button drawer-only" aria-label="Show the channels" onClick={onShowChannels}>
          <MenuIcon />
        </button>
        <h1>
          <span className="hash" aria-hidden="true">
            #
          </span>
          {channel.name}
        </h1>
        <p className="topic">{channel.topic}</p>
        <Connection />
        <button className="icon-button members-button" aria-label="Show the members" onClick={onShowMembers}>
          <PeopleIcon />
        </button>
      </header>
      <History
        key={channel.id}
        me={me}
        channel={channel}
        people={people}
        messages={results}
        status={status}
        loadMore={() => loadMore(PAGE)}
        unreadWhenOpened={unreadWhenOpened}
        editing={editing}
        setEditing={setEditing}
      />
      <footer className="composer-area">
        {channel.joined ? (
          <Composer me={me} channel={channel} onEditLast={editLast} />
        ) : (
          <button className="primary join-channel" onClick={onJoin}>
            Join #{channel.name} to write in it
          </button>
        )}
        <Writing me={me} channel={channel} people={people} />
      </footer>
    </main>
  );
}

/** Tells the server how far this user has read, while the page is looked at. */
function useReadMark(channel: ChannelSummary, newestFirst: Message[]): void {
  const markRead = useMutation(api.channels.mark_read).withOptimisticUpdate((store, args) => {
    const channels = store.getQuery(api.channels.overview, { session });
    const read = channels?.map((each) => (each.id === args.channel ? { ...each, unread: 0 } : each));
    if (read) store.setQuery(api.channels.overview, { session }, read);
  });
  const [looking, setLooking] = useState(() => document.hasFocus());
  useEffect(() => {
    const look = () => setLooking(document.hasFocus());
    addEventListener("focus", look);
    addEventListener("blur", look);
    return () => {
      removeEventListener("focus", look);
      removeEventListener("blur", look);
    };
  }, []);

  const newest = newestFirst.find((message) => !isUnsent(message))?._creationTime;
  const behind = channel.unread > 0;
  useEffect(() => {
    // A mark that does not arrive is set again by the next message.
    if (looking && behind && newest) void markRead({ session, channel: channel.id, until: newest }).catch(() => {});
  }, [looking, behind, newest, channel.id]);
}

function Writing({ me, channel, people }: { me: User; channel: ChannelSummary; people: People }) {
  const writing = useQuery(api.presence.writing, { channel: channel.id }) ?? [];
  const names = writing.filter((id) => id !== me._id).map((id) => people.get(id)?.name ?? "Someone");
  return (
    <p className="writing" role="status">
      {names.length > 0 && (
        <>
          <span className="writing-dots" aria-hidden="true">
            <i />
            <i />
            <i />
          </span>
          {names.length > 3 ? "Several people" : new Intl.ListFormat("en").format(names)} {names.length === 1 ? "is" : "are"} typing
        </>
      )}
    </p>
  );
}
