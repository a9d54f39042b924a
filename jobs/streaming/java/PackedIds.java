// The ids of an event where views have packed them (job.py `IDS`, whose places EventContract has).
package headwater;

final class PackedIds {
    private PackedIds() {}

    /** 64 bits of an id's hash (EventBucket.java): those of an empty one when it is absent. */
    static long hash(byte[] ids, int which) {
        PackedReader in = PackedFields.behind(ids, which);
        int size = Math.max(in.overText(), 0);
        return EventBucket.hash(ids, in.position - size, size);
    }

    static boolean has(byte[] ids, int which) {
        return PackedFields.behind(ids, which).overText() >= 0;
    }
}
