import { useMutation } from "convex/react";
import { useState, type FormEvent } from "react";
import { api, type ChannelSummary, type User } from "./api";
import { Avatar } from "./Avatar";
import { Connection } from "./Connection";
import { CloseIcon, ExitIcon, Logo, PlusIcon, WindowIcon } from "./icons";
import { session, signOut } from "./session";
import { useToast } from "./toasts";

type Props = { me: User; channels?: ChannelSummary[]; current?: ChannelSummary; onClose: () => void };

export function Sidebar({ me, channels, current, onClose }: Props) {
  const joined = channels?.filter((channel) => channel.joined) ?? [];
  const others = channels?.filter((channel) => !channel.joined) ?? [];
  return (
    <aside className="sidebar" aria-label="Channels">
      <header className="brand">
        <Logo />
        <strong>Reactor chat</strong>
        <button className="icon-button drawer-only" aria-label="Close the channel list" onClick={onClose}>
          <CloseIcon />
        </button>
      </header>
      <nav>
        <h2>Channels</h2>
        <ChannelList channels={joined} current={current} />
        {others.length > 0 && <h2>More channels</h2>}
        <ChannelList channels={others} current={current} />
        <NewChannel />
      </nav>
      <Connection />
      <footer className="me">
        <Avatar user={me} present />
        <span className="me-name">{me.name}</span>
        <a className="icon-button" href="?guest" target="_blank" rel="noopener" title="Open a window as someone else">
          <WindowIcon />
          <span className="visually-hidden">Open a window as someone else</span>
        </a>
        <button className="icon-button" title="Sign out" aria-label="Sign out" onClick={signOut}>
          <ExitIcon />
        </button>
      </footer>
    </aside>
  );
}

function ChannelList({ channels, current }: { channels: ChannelSummary[]; current?: ChannelSummary }) {
  return (
    <ul className="channels">
      {channels.map((channel) => (
        <li key={channel.id}>
          <a href={`#${channel.name}`} aria-current={channel.id === current?.id ? "page" : undefined} data-unread={channel.unread > 0 || undefined}>
            <span className="hash" aria-hidden="true">
              #
            </span>
            <span className="channel-name">{channel.name}</span>
            {channel.unread > 0 && (
              <span className="badge">
                {channel.unread > 99 ? "99+" : channel.unread}
                <span className="visually-hidden"> unread</span>
              </span>
            )}
          </a>
        </li>
      ))}
    </ul>
  );
}

function NewChannel() {
  const [open, setOpen] = useState(false);
  const [name, setName] = useState("");
  const create = useMutation(api.channels.create);
  const showError = useToast();

  async function submit(event: FormEvent) {
    event.preventDefault();
    if (!name.trim()) return setOpen(false);
    try {
      await create({ session, name });
      location.hash = name.trim().toLowerCase().replaceAll(" ", "-");
      setName("");
      setOpen(false);
    } catch (error) {
      showError(error);
    }
  }

  if (!open) {
    return (
      <button className="new-channel" onClick={() => setOpen(true)}>
        <PlusIcon /> New channel
      </button>
    );
  }
  return (
    <form className="new-channel-form" onSubmit={submit}>
      <input
        aria-label="Name of the new channel"
        placeholder="name, then Enter"
        value={name}
        maxLength={30}
        autoFocus
        onChange={(event) => setName(event.target.value)}
        onKeyDown={(event) => event.key === "Escape" && setOpen(false)}
        onBlur={() => !name && setOpen(false)}
      />
    </form>
  );
}
