// The ids of an event where views have packed them (job.py `IDS`, whose places EventContract has).
package headwater;

final class PackedIds {
    private PackedIds() {}

    /** 64 bits of an id's hash (EventBucket.java): those of an empty one when it is absent. */
    static long hash(byte[] ids, int which) {
        PackedReader in = behind(ids, which);
        int size = Math.max(in.overText(), 0);
        return EventBucket.hash(ids, in.position - size, size);
    }

    static boolean has(byte[] ids, int which) {
        return behind(ids, which).overText() >= 0;
    }

    private static PackedReader behind(byte[] ids, int which) {
        PackedReader in = new PackedReader(ids, 0);
        for (int i = 0; i < which; i++) {
            in.overText();
        }
        return in;
    }
}
