import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonParser;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.MessageOrBuilder;
import com.google.protobuf.util.JsonFormat;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import internal.emitter.v1.*;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.MetadataUtils;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** A program with generated stubs: emits runs in every way, reads them back, and prints a JSON line for each step. */
class Client {
    static final int PATIENCE_MS = 60_000;
    static final String USER = System.getenv("USER_ID");

    final EventEmitterGrpc.EventEmitterBlockingStub emitter;
    final EventSubscriberGrpc.EventSubscriberBlockingStub subscriber;

    Client(ManagedChannel channel) {
        emitter = as("EMIT_TOKEN", EventEmitterGrpc.newBlockingStub(channel));
        subscriber = as("READ_TOKEN", EventSubscriberGrpc.newBlockingStub(channel));
    }

    public static void main(String[] args) throws Exception {
        var channel = Grpc.newChannelBuilder(System.getenv("GRPC"), InsecureChannelCredentials.create()).build();
        new Client(channel).tell();
        channel.shutdownNow().awaitTermination(PATIENCE_MS, TimeUnit.MILLISECONDS);
    }

    void tell() throws InvalidProtocolBufferException {
        var one = run("one");
        var two = run("two");
        var receipts = emitEach(one);
        say("emitted", jsons(receipts));
        say("batched", jsons(emitBatch(two)));
        var again = new ArrayList<>(emitEach(one));
        again.addAll(emitBatch(two));
        say("retried", jsons(again));

        say("invalid", refusal(one.get(1).toBuilder().clearUserId().build()));
        emitEach(run("three").subList(0, 1));
        var rival = run("three").get(1).toBuilder();
        rival.getSourceBuilder().setProducerId("rival");
        say("competing", refusal(rival.build()));

        say("read", jsons(read(SubscribeRequest.newBuilder().setFrom(StartFrom.START_FROM_OLDEST), 11)));
        say("resumed", jsons(read(SubscribeRequest.newBuilder().setAfter(receipts.get(3).getPosition()), 7)));
        say("deadline", deadline());
    }

    /** A whole run of five events. */
    static List<Event> run(String name) {
        var id = USER + "-" + name;
        var begun = ToolExecuting.newBuilder().setToolCallId("c1").setToolName("search");
        var ended = ToolCompleted.newBuilder().setToolCallId("c1").setStatus(ToolStatus.TOOL_STATUS_SUCCEEDED);
        var events = List.of(
                Event.newBuilder().setAgentName("writer").setAgentStarted(AgentStarted.newBuilder().setMessage("On it")),
                Event.newBuilder().setAgentThinking(AgentThinking.newBuilder().setReasoning("Größe ✓").setStepNumber(1)),
                Event.newBuilder().setToolExecuting(begun.setParametersJson("{\"id\":9007199254740993}")),
                Event.newBuilder().setToolCompleted(ended.setResultJson("[\"a\",\"b\"]")),
                Event.newBuilder().setAgentCompleted(AgentCompleted.newBuilder().setMessage("Done")));
        var run = new ArrayList<Event>();
        for (var event : events) {
            event.setEventId(id + "-" + (run.size() + 1)).setUserId(USER).setRunId(id);
            event.getSourceBuilder().setProducerId("client").setTerm(1);
            run.add(event.build());
        }
        return run;
    }

    List<Receipt> emitEach(List<Event> events) {
        return events.stream().map(event -> emit(event).getReceipt()).toList();
    }

    EmitResponse emit(Event event) {
        return within(PATIENCE_MS, emitter).emit(EmitRequest.newBuilder().setEvent(event).build());
    }

    List<Receipt> emitBatch(List<Event> events) {
        var answer = within(PATIENCE_MS, emitter).emitBatch(EmitBatchRequest.newBuilder().addAllEvents(events).build());
        return answer.getResultsList().stream().map(EmitResult::getReceipt).toList();
    }

    /** What the details say of an emit that must fail. */
    Map<String, Object> refusal(Event event) throws InvalidProtocolBufferException {
        StatusRuntimeException error;
        try {
            throw new AssertionError("it was stored: " + emit(event));
        } catch (StatusRuntimeException refused) {
            error = refused;
        }
        var info = ErrorInfo.getDefaultInstance();
        var invalid = BadRequest.getDefaultInstance();
        for (var detail : StatusProto.fromThrowable(error).getDetailsList()) {
            info = detail.is(ErrorInfo.class) ? detail.unpack(ErrorInfo.class) : info;
            invalid = detail.is(BadRequest.class) ? detail.unpack(BadRequest.class) : invalid;
        }
        var fields = invalid.getFieldViolationsList().stream().map(BadRequest.FieldViolation::getField).toList();
        return Map.of("code", error.getStatus().getCode().value(), "domain", info.getDomain(),
                "reason", info.getReason(), "metadata", info.getMetadataMap(), "fields", fields);
    }

    /** Reads as many events; no gap may come between. */
    List<RecordedEvent> read(SubscribeRequest.Builder request, int count) {
        var events = new ArrayList<RecordedEvent>();
        var stream = within(PATIENCE_MS, subscriber).subscribe(request.build());
        while (events.size() < count) {
            var item = stream.next();
            switch (item.getItemCase()) {
                case EVENT -> events.add(item.getEvent());
                case ESTABLISHED, CAUGHT_UP -> {}
                default -> throw new AssertionError("not awaited: " + item);
            }
        }
        return events;
    }

    /** Reads where nothing comes, until the deadline ends it. */
    Map<String, Object> deadline() {
        try {
            within(500, subscriber).subscribe(SubscribeRequest.getDefaultInstance()).forEachRemaining(item -> {});
            return Map.of("code", 0);
        } catch (StatusRuntimeException error) {
            return Map.of("code", error.getStatus().getCode().value());
        }
    }

    static <S extends AbstractStub<S>> S within(int milliseconds, S stub) {
        return stub.withDeadlineAfter(milliseconds, TimeUnit.MILLISECONDS);
    }

    /** Gives a stub's calls a credential. */
    static <S extends AbstractStub<S>> S as(String token, S stub) {
        var headers = new Metadata();
        headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + System.getenv(token));
        return stub.withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers));
    }

    static void say(String step, Object told) {
        System.out.println(new Gson().toJson(Map.of("step", step, "told", told)));
    }

    static List<JsonElement> jsons(List<? extends MessageOrBuilder> messages) throws InvalidProtocolBufferException {
        var jsons = new ArrayList<JsonElement>();
        for (var message : messages) {
            jsons.add(JsonParser.parseString(JsonFormat.printer().preservingProtoFieldNames().print(message)));
        }
        return jsons;
    }
}
