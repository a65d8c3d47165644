/** A part of the names of users, aliases or rooms. */
export interface Namespace {
  /** Nobody else may make names of it. */
  readonly exclusive: boolean;
  /** Matches from a name's beginning, as homeservers do. */
  readonly pattern: RegExp;
}

/** @see https://spec.matrix.org/v1.19/application-service-api/#registration */
export interface ApplicationService {
  readonly id: string;
  /** Without a slash at its end; null: nothing is ever sent to it. */
  readonly url: string | null;
  /** By which it proves itself to us. */
  readonly asToken: string;
  /** By which we prove ourselves to it. */
  readonly hsToken: string;
  readonly senderLocalpart: string;
  /** It wants typing, receipts and presence too. */
  readonly receiveEphemeral: boolean;
  readonly namespaces: {
    readonly users: readonly Namespace[];
    readonly aliases: readonly Namespace[];
    readonly rooms: readonly Namespace[];
  };
}
