//! The commands of a store, for whoever stands before one and does the same about each.

/// Calls `$apply!` once for each trait whose methods ask a store something, with the trait and all of its methods. The types are
/// those that the caller has imported.
#[doc(hidden)]
#[macro_export]
macro_rules! commands {
    ($apply:ident) => {
        $apply! { Directory,
            register(service: &ServiceName, worker: &WorkerId, entry: Entry) -> Result<Epoch, StoreError>;
            settling(service: &ServiceName) -> Result<Settling, StoreError>;
            renew(service: &ServiceName, owner: &Owner, beat: &Heartbeat) -> Result<Orders, FleetError>;
            leave(service: &ServiceName, owner: &Owner) -> Result<(), FleetError>;
            workers(service: &ServiceName) -> Result<Vec<WorkerView>, StoreError>;
            ask_gate(service: &ServiceName, worker: &WorkerId, gate: Gate) -> Result<bool, StoreError>;
            traffic(service: &ServiceName) -> Result<Traffic, StoreError>;
            hold(service: &ServiceName, router: &RouterId, waits: Waits) -> Result<(), StoreError>;
            held() -> Result<Vec<(ServiceName, u32)>, StoreError>;
        }

        $apply! { Sessions,
            claim(service: &ServiceName, request: &ClaimRequest) -> Result<Claimed, StoreError>;
            release(service: &ServiceName, ticket: Ticket) -> Result<(), StoreError>;
            report(service: &ServiceName, owner: &Owner, ticket: Ticket, phase: Phase, detail: &Map<String, Value>)
                -> Result<Held, FleetError>;
            end(service: &ServiceName, owner: &Owner, ticket: Ticket, reason: CloseReason) -> Result<(), FleetError>;
            restore(service: &ServiceName, owner: &Owner, sessions: &[Restored]) -> Result<Vec<Restoration>, FleetError>;
            ask(service: &ServiceName, session: &SessionId, context: Option<ContextId>, demand: &Demand)
                -> Result<Told, StoreError>;
            acknowledge(service: &ServiceName, owner: &Owner, ticket: Ticket, track: &TrackId, result: TrackResult)
                -> Result<(), FleetError>;
            outcome(service: &ServiceName, pending: &Pending) -> Result<Option<Outcome>, StoreError>;
            reap(service: &ServiceName) -> Result<u32, StoreError>;
            session(service: &ServiceName, session: &SessionId) -> Result<Option<SessionView>, StoreError>;
            list(service: &ServiceName, filter: &Filter) -> Result<Page, StoreError>;
        }

        $apply! { Outputs,
            append(service: &ServiceName, owner: &Owner, ticket: Ticket, batch: &Batch<'_>) -> Result<Appended, FleetError>;
            outputs(service: &ServiceName, whose: Whose<'_>, seen: Option<Seen>) -> Result<Option<Read>, StoreError>;
        }

        $apply! { Calls,
            enter_call(service: &ServiceName, call: u128, session: &SessionId) -> Result<bool, StoreError>;
            session_of_call(service: &ServiceName, call: u128) -> Result<Option<SessionId>, StoreError>;
        }

        $apply! { ContextStore,
            open(key: &ContextKey, claim: &Claim) -> Result<Opened, StoreError>;
            find(key: &ContextKey) -> Result<Option<ContextId>, StoreError>;
            rotate(key: &ContextKey, token: &ResumeToken) -> Result<Option<Issued>, StoreError>;
            share(key: &ContextKey, claim: &Claim) -> Result<Sharing, StoreError>;
            confirm(id: ContextId, token: &ResumeToken, delivery: Delivery) -> Result<bool, StoreError>;
            verify(key: &ContextKey, token: &ResumeToken) -> Result<Option<ContextId>, StoreError>;
            read(id: ContextId) -> Result<Option<Document>, StoreError>;
            write(id: ContextId, data: Map<String, Value>, expected: Expected) -> Result<Version, WriteError>;
            close(id: ContextId) -> Result<(), StoreError>;
        }
    };
}
