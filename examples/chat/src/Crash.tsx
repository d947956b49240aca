import { Component, type ReactNode } from "react";

/** What shows instead of the page when drawing it fails. */
export class Crash extends Component<{ children: ReactNode }, { error?: Error }> {
  state: { error?: Error } = {};

  static getDerivedStateFromError(error: Error) {
    return { error };
  }

  render() {
    if (!this.state.error) return this.props.children;
    return (
      <main className="splash">
        <section className="card" role="alert">
          <h1>Something went wrong</h1>
          <p className="crash-text">{this.state.error.message}</p>
          <button className="primary" onClick={() => location.reload()}>
            Load the page again
          </button>
        </section>
      </main>
    );
  }
}
