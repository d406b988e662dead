"""Who takes part: people at screens, and the agents that work for them."""

import uuid


def fresh(name):
    return f"{name}-{uuid.uuid4().hex[:12]}"


class Person:
    """A user nobody else knows, an agent's credential to emit to them, and their own to read."""

    def __init__(self, server):
        self.user_id = fresh("user")
        self.emit_token = server.token(fresh("agent"), "emit")
        self.read_token = server.token(self.user_id, "subscribe")

    @property
    def emitting(self):
        """gRPC metadata of the agent."""
        return (("authorization", f"Bearer {self.emit_token}"),)

    @property
    def reading(self):
        """gRPC metadata of a reader on the person's behalf."""
        return (("authorization", f"Bearer {self.read_token}"),)

    def run(self):
        return Run(self.user_id)


class Run:
    """One run of an agent: the five critical events, as protobuf's JSON."""

    TYPES = ["agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed"]
    # What the service adds to the payloads about the tool call: the number of its begin.
    CALL_SEQUENCE = 3

    def __init__(self, user_id):
        self.user_id = user_id
        self.run_id = fresh("run")
        self.thread_id = fresh("thread")
        self.agent_name = "researcher"
        call = fresh("call")
        started = {"agent_started": {"message": "Looking into it", "agent_type": "research"}}
        self.events = [
            # Only the start states the thread and the agent: the later events inherit them.
            self._event(thread_id=self.thread_id, agent_name=self.agent_name, **started),
            self._event(
                agent_thinking={
                    "reasoning": "Größe first, then price ✓",
                    "step_number": 1,
                    "total_steps": 2,
                    "progress_percentage": 12.5,
                }
            ),
            self._event(
                tool_executing={
                    "tool_call_id": call,
                    "tool_name": "search",
                    "description": "Searches the catalogue",
                    "parameters": {"query": "boots", "limit": 3},
                }
            ),
            self._event(
                tool_completed={
                    "tool_call_id": call,
                    "tool_name": "search",
                    "status": "TOOL_STATUS_SUCCEEDED",
                    "execution_time": "0.118s",
                    "result": {"hits": 3, "best": ["a", "b"]},
                }
            ),
            self._event(
                agent_completed={"message": "Done", "execution_time": "1.500s", "result": {"answer": "the brown ones"}}
            ),
        ]

    def _event(self, **fields):
        return {"event_id": str(uuid.uuid4()), "user_id": self.user_id, "run_id": self.run_id, **fields}

    @property
    def event_ids(self):
        return [event["event_id"] for event in self.events]

    @property
    def payloads(self):
        """The payloads as a browser gets them, in order."""
        payloads = [dict(event[arm]) for event, arm in zip(self.events, self.TYPES)]
        for payload in payloads:
            if "tool_call_id" in payload:
                payload["call_sequence"] = self.CALL_SEQUENCE
            if "execution_time" in payload:
                payload["execution_time_ms"] = round(float(payload.pop("execution_time").rstrip("s")) * 1000)
            if "status" in payload:
                payload["status"] = payload["status"].removeprefix("TOOL_STATUS_").lower()
        return payloads
