import { Fragment, useEffect, useRef, useState } from "react";
import type { ChannelSummary, Message, User } from "./api";
import type { People } from "./Chat";
import { DownIcon } from "./icons";
import { MessageRow } from "./MessageRow";

const TOGETHER_MS = 5 * 60_000; // messages of one author this close share one heading

const dayFormat = new Intl.DateTimeFormat("en", { weekday: "long", month: "long", day: "numeric" });

type Props = {
  me: User;
  channel: ChannelSummary;
  people: People;
  messages: Message[]; // newest first, as the query gives them
  status: "LoadingFirstPage" | "CanLoadMore" | "LoadingMore" | "Exhausted";
  loadMore: () => void;
  unreadWhenOpened: number;
  editing: string | null;
  setEditing: (id: string | null) => void;
};

export function History({ me, channel, people, messages, status, loadMore, unreadWhenOpened, editing, setEditing }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const [away, setAway] = useState(false); // scrolled up, so that new messages come in unseen
  const firstNew = useFirstNew(messages, unreadWhenOpened);
  const top = useSeen(box, loadMore, status === "CanLoadMore");

  const toBottom = () => box.current?.scrollTo({ top: 0 });

  // One's own message is always shown.
  const newest = messages[0];
  useEffect(() => {
    if (newest?.author === me._id) toBottom();
  }, [newest?._id]);

  const oldestFirst = messages.toReversed();
  return (
    <div className="history-frame">
      {/* The box is laid out from its bottom (see the style), so scrollTop is 0 at the newest message and negative above. */}
      <div className="history" ref={box} tabIndex={0} onScroll={(event) => setAway(event.currentTarget.scrollTop < -150)}>
        <ol className="messages" role="log" aria-label={`Messages in #${channel.name}`} aria-busy={status === "LoadingFirstPage"}>
          {status === "Exhausted" && <Beginning channel={channel} empty={messages.length === 0} />}
          {(status === "LoadingFirstPage" || status === "LoadingMore") && <Skeleton rows={status === "LoadingMore" ? 3 : 8} />}
          <li ref={top} aria-hidden="true" />
          {oldestFirst.map((message, index) => {
            const before = oldestFirst[index - 1];
            const newDay = !before || !sameDay(before, message);
            const isFirstNew = message._id === firstNew;
            const together =
              !newDay && !isFirstNew && before.author === message.author && message._creationTime - before._creationTime < TOGETHER_MS;
            return (
              <Fragment key={message._id}>
                {newDay && (
                  <li className="divider">
                    <span>{dayName(message)}</span>
                  </li>
                )}
                {isFirstNew && (
                  <li className="divider new">
                    <span>New</span>
                  </li>
                )}
                <MessageRow
                  me={me}
                  message={message}
                  people={people}
                  together={together}
                  editing={editing === message._id}
                  setEditing={(on) => setEditing(on ? message._id : null)}
                />
              </Fragment>
            );
          })}
        </ol>
      </div>
      {away && (
        <button className="to-bottom" onClick={toBottom}>
          <DownIcon /> Newest
        </button>
      )}
    </div>
  );
}

function Beginning({ channel, empty }: { channel: ChannelSummary; empty: boolean }) {
  return (
    <li className="beginning">
      <h2>#{channel.name}</h2>
      <p className="muted">{empty ? "Nothing here yet. Say the first word!" : "This is where it began."}</p>
    </li>
  );
}

function Skeleton({ rows }: { rows: number }) {
  return Array.from({ length: rows }, (_, index) => (
    <li className="skeleton" key={index} aria-hidden="true">
      <i />
      <span style={{ width: `${35 + ((index * 37) % 50)}%` }} />
    </li>
  ));
}

/** The first message that was unread when the channel was opened: where the line "New" goes. */
function useFirstNew(newestFirst: Message[], unread: number): string | undefined {
  const [firstNew, setFirstNew] = useState<string>();
  const loaded = newestFirst.length > 0;
  useEffect(() => {
    if (loaded && unread > 0) setFirstNew(newestFirst[unread - 1]?._id);
  }, [loaded]);
  return firstNew;
}

/** Calls `onSeen` whenever the element comes near the view while `wanted`. */
function useSeen(box: React.RefObject<HTMLDivElement | null>, onSeen: () => void, wanted: boolean) {
  const element = useRef<HTMLLIElement>(null);
  const call = useRef(onSeen);
  call.current = onSeen;
  useEffect(() => {
    if (!wanted || !element.current) return;
    const observer = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && call.current(), {
      root: box.current,
      rootMargin: "600px 0px 0px 0px",
    });
    observer.observe(element.current);
    return () => observer.disconnect();
  }, [wanted]);
  return element;
}

const dayOf = (message: Message) => new Date(message._creationTime).toDateString();
const sameDay = (a: Message, b: Message) => dayOf(a) === dayOf(b);

function dayName(message: Message): string {
  const day = dayOf(message);
  if (day === new Date().toDateString()) return "Today";
  if (day === new Date(Date.now() - 86_400_000).toDateString()) return "Yesterday";
  return dayFormat.format(message._creationTime);
}
