// A program with generated stubs: emits runs in every way, reads them back, and prints a JSON line for each step.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"time"

	pb "example/emitter/v1"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const patience = 60 * time.Second

var user = os.Getenv("USER_ID")

func main() {
	channel := must(grpc.NewClient(os.Getenv("GRPC"), grpc.WithTransportCredentials(insecure.NewCredentials())))
	defer channel.Close()
	emitter, subscriber := pb.NewEventEmitterClient(channel), pb.NewEventSubscriberClient(channel)

	one, two := newRun("one"), newRun("two")
	receipts := emitEach(emitter, one)
	say("emitted", receipts)
	say("batched", emitBatch(emitter, two))
	say("retried", append(emitEach(emitter, one), emitBatch(emitter, two)...))

	say("invalid", refusal(emitter, &pb.Event{RunId: user + "-three", Payload: one[1].Payload}))
	emitEach(emitter, newRun("three")[:1])
	rival := newRun("three")[1]
	rival.Source.ProducerId = "rival"
	say("competing", refusal(emitter, rival))

	oldest := &pb.SubscribeRequest_From{From: pb.StartFrom_START_FROM_OLDEST}
	say("read", read(subscriber, &pb.SubscribeRequest{Start: oldest}, 11))
	after := &pb.SubscribeRequest_After{After: receipts[3].Position}
	say("resumed", read(subscriber, &pb.SubscribeRequest{Start: after}, 7))
	say("deadline", deadline(subscriber))
}

// newRun is a whole run of five events.
func newRun(name string) []*pb.Event {
	id := user + "-" + name
	events := []*pb.Event{
		{AgentName: "writer", Payload: &pb.Event_AgentStarted{AgentStarted: &pb.AgentStarted{Message: "On it"}}},
		{Payload: &pb.Event_AgentThinking{AgentThinking: &pb.AgentThinking{Reasoning: "Größe ✓", StepNumber: proto.Uint32(1)}}},
		{Payload: &pb.Event_ToolExecuting{ToolExecuting: &pb.ToolExecuting{
			ToolCallId: "c1", ToolName: "search",
			Input: &pb.ToolExecuting_ParametersJson{ParametersJson: `{"id":9007199254740993}`},
		}}},
		{Payload: &pb.Event_ToolCompleted{ToolCompleted: &pb.ToolCompleted{
			ToolCallId: "c1", Status: pb.ToolStatus_TOOL_STATUS_SUCCEEDED,
			Output: &pb.ToolCompleted_ResultJson{ResultJson: `["a","b"]`},
		}}},
		{Payload: &pb.Event_AgentCompleted{AgentCompleted: &pb.AgentCompleted{Message: "Done"}}},
	}
	for i, event := range events {
		event.EventId = id + "-" + string(rune('1'+i))
		event.UserId, event.RunId = user, id
		event.Source = &pb.Source{ProducerId: "client", Term: 1}
	}
	return events
}

func emitEach(emitter pb.EventEmitterClient, events []*pb.Event) (receipts []*pb.Receipt) {
	for _, event := range events {
		ctx, done := as("EMIT_TOKEN", patience)
		receipts = append(receipts, must(emitter.Emit(ctx, &pb.EmitRequest{Event: event})).Receipt)
		done()
	}
	return receipts
}

func emitBatch(emitter pb.EventEmitterClient, events []*pb.Event) (receipts []*pb.Receipt) {
	ctx, done := as("EMIT_TOKEN", patience)
	defer done()
	for _, result := range must(emitter.EmitBatch(ctx, &pb.EmitBatchRequest{Events: events})).Results {
		receipts = append(receipts, result.GetReceipt())
	}
	return receipts
}

// refusal is what the details say of an emit that must fail.
func refusal(emitter pb.EventEmitterClient, event *pb.Event) map[string]any {
	ctx, done := as("EMIT_TOKEN", patience)
	defer done()
	_, err := emitter.Emit(ctx, &pb.EmitRequest{Event: event})
	refused, fields := map[string]any{"code": status.Code(err)}, []string{}
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			refused["domain"], refused["reason"], refused["metadata"] = detail.Domain, detail.Reason, detail.Metadata
		case *errdetails.BadRequest:
			for _, violation := range detail.FieldViolations {
				fields = append(fields, violation.Field)
			}
		}
	}
	refused["fields"] = fields
	return refused
}

// read reads as many events; no gap may come between.
func read(subscriber pb.EventSubscriberClient, request *pb.SubscribeRequest, count int) (events []*pb.RecordedEvent) {
	ctx, done := as("READ_TOKEN", patience)
	defer done()
	stream := must(subscriber.Subscribe(ctx, request))
	for len(events) < count {
		switch item := must(stream.Recv()).Item.(type) {
		case *pb.SubscribeResponse_Event:
			events = append(events, item.Event)
		case *pb.SubscribeResponse_Established, *pb.SubscribeResponse_CaughtUp:
		default:
			log.Fatalf("not awaited: %v", item)
		}
	}
	return events
}

// deadline reads where nothing comes, until the deadline ends it.
func deadline(subscriber pb.EventSubscriberClient) map[string]any {
	ctx, done := as("READ_TOKEN", time.Second/2)
	defer done()
	stream, err := subscriber.Subscribe(ctx, &pb.SubscribeRequest{})
	for err == nil {
		_, err = stream.Recv()
	}
	return map[string]any{"code": status.Code(err)}
}

// as gives a call a credential and a deadline.
func as(token string, timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+os.Getenv(token))
	return context.WithTimeout(ctx, timeout)
}

// say prints a step, its messages as protobuf's JSON.
func say[T any](step string, what T) {
	line := map[string]any{"step": step, "told": what}
	switch messages := any(what).(type) {
	case []*pb.Receipt:
		line["told"] = jsons(messages)
	case []*pb.RecordedEvent:
		line["told"] = jsons(messages)
	}
	must(os.Stdout.Write(append(must(json.Marshal(line)), '\n')))
}

func jsons[M proto.Message](messages []M) (texts []json.RawMessage) {
	for _, message := range messages {
		texts = append(texts, must(protojson.MarshalOptions{UseProtoNames: true}.Marshal(message)))
	}
	return texts
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
